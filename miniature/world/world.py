"""The entities that the art makes possible, which of them are set aside, and how to sample.

An entity is a sprite of the art in its own colours, or tinted. A tint that can hardly be told from
the sprite's own colours is left out.

**Held out of training**, by rules that need no list (positions in the tuples of ``World`` and
``description``):

* an entity, if ``noun + 3 · colour + 2 · set`` leaves 1 when it is divided by 7;
* an arrangement of two, if ``noun + noun + relation`` leaves nothing.
"""

from functools import cache, cached_property
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kosmosg.errors import DataError
from miniature.world.art import Art, load_art
from miniature.world.description import (
    COLOURS,
    NATURAL,
    NOTHING,
    RELATIONS,
    SCENES,
    STYLES,
    TINTS,
    Description,
    Entity,
    Figure,
    choose,
)

HELD_OUT_MODULUS, HELD_OUT_ENTITY, HELD_OUT_ARRANGEMENT = 7, 1, 0

# How often a sampled image has an entity in its own colours, two figures, a dressed one (never one
# of two, which are small), and each style.
NATURAL_SHARE = 0.5
TWO_FIGURES = 0.35
DRESSED = 0.45
STYLE_SHARES = (0.68, 0.08, 0.08, 0.08, 0.08)

TINT_STRENGTH = 0.9
DISTINCT = 34.0  # mean distance of a tinted sprite from its own colours, in 8-bit values
THUMBNAIL = 32


class World:
    """Descriptions over the nouns of some art, and the sprites that show them."""

    def __init__(self, art: Art):
        self.art = art
        self.nouns = art.nouns
        self.arts = tuple(art.sets)
        self.accessories = (NOTHING, *art.accessories)
        self._sprites: dict[Entity, Image.Image] = {}
        reserved = {*COLOURS, *SCENES, *STYLES, *self.arts, *self.accessories}
        for noun in self.nouns:
            if taken := reserved & {*noun.split()}:
                raise DataError(
                    f"{noun}.png: captions have the word {taken.pop()!r} for something else. "
                    "Rename it."
                )
        for held_out in (False, True):
            pairs = {pair[:2] for pair in self.arrangements(held_out)}
            if not any(self._can_stand_together(*pair, held_out) for pair in pairs):
                raise DataError(
                    f"Of {len(self.nouns)} nouns none can be kept for training and others for the "
                    "evaluation. Use art with at least ten nouns."
                )

    @classmethod
    def open(cls, folder: str | Path) -> "World":
        """Open a folder of art (see ``art.load_art``)."""
        return cls(load_art(folder))

    def sprite(self, entity: Entity) -> Image.Image:
        """Give the sprite of an entity, an RGBA image."""
        if entity not in self._sprites:
            sprite = self.art.sets[entity.art][entity.noun]
            self._sprites[entity] = tint(sprite, entity.colour)
        return self._sprites[entity]

    def is_held_out(self, entity: Entity) -> bool:
        """Tell whether an entity is set aside for evaluation."""
        position = self.nouns.index(entity.noun) + 3 * COLOURS.index(entity.colour)
        return (position + 2 * self.arts.index(entity.art)) % HELD_OUT_MODULUS == HELD_OUT_ENTITY

    def is_held_out_arrangement(self, first: str, second: str, relation: str) -> bool:
        """Tell whether two nouns in a relation are set aside, in whatever order."""
        position = self.nouns.index(first) + self.nouns.index(second) + RELATIONS.index(relation)
        return position % HELD_OUT_MODULUS == HELD_OUT_ARRANGEMENT

    def may_be_trained_on(self, description: Description) -> bool:
        """Tell whether neither an entity nor the arrangement is set aside."""
        if any(self.is_held_out(figure.entity) for figure in description.figures):
            return False
        if description.relation is None:
            return True
        first, second = (figure.entity.noun for figure in description.figures)
        return not self.is_held_out_arrangement(first, second, description.relation)

    @cached_property
    def _entities(self) -> tuple[Entity, ...]:
        every = product(self.arts, self.nouns, COLOURS)
        return tuple(
            Entity(noun=noun, colour=colour, art=art)
            for art, noun, colour in every
            if _is_distinct(self.art.sets[art][noun], colour)
        )

    @cache  # noqa: B019  # there is one world in a process
    def entities(self, held_out: bool | None = False) -> tuple[Entity, ...]:
        """List the entities of training, those held out, or (``None``) all, in fixed order."""
        return tuple(
            e for e in self._entities if held_out is None or self.is_held_out(e) == held_out
        )

    @cache  # noqa: B019
    def arrangements(self, held_out: bool | None = False) -> tuple[tuple[str, str, str], ...]:
        """List (noun, noun, relation) of training, those held out, or (``None``) all of them."""
        every = product(self.nouns, self.nouns, RELATIONS)
        return tuple(
            a for a in every if held_out is None or self.is_held_out_arrangement(*a) == held_out
        )

    def sample_entity(
        self, rng: np.random.Generator, held_out: bool | None = False, noun: str | None = None
    ) -> Entity:
        """Draw an entity; the share of those in their own colours is ``NATURAL_SHARE``."""
        entities = [e for e in self.entities(held_out) if noun in (None, e.noun)]
        natural = [e for e in entities if e.colour == NATURAL]
        tinted = [e for e in entities if e.colour != NATURAL]
        wants_natural = rng.random() < NATURAL_SHARE
        return choose((natural if wants_natural else tinted) or entities, rng)

    def sample_description(
        self, rng: np.random.Generator, held_out: bool | None = False, figures: int | None = None
    ) -> Description:
        """Draw what an image shows.

        Args:
            rng: Source of all chance.
            held_out: False for training; True for evaluation, where every entity and every
                arrangement is one that training never has; None for both without distinction.
            figures: One or two; otherwise by chance.
        """
        if figures is None:
            figures = 2 if rng.random() < TWO_FIGURES else 1
        relation = None
        if figures == 1:
            dressed = len(self.accessories) > 1 and rng.random() < DRESSED
            accessory = choose(self.accessories[1:], rng) if dressed else NOTHING
            entities = [self.sample_entity(rng, held_out)]
        else:
            accessory = NOTHING
            entities, relation = self._sample_two(rng, held_out)
        share = np.searchsorted(np.cumsum(STYLE_SHARES[:-1]), rng.random(), side="right")
        return Description(
            figures=tuple(Figure(entity=each, accessory=accessory) for each in entities),
            relation=relation,
            scene=choose(SCENES, rng),
            style=STYLES[int(share)],
        )

    @cache  # noqa: B019
    def _can_stand_together(self, first: str, second: str, held_out: bool | None) -> bool:
        """Tell whether two nouns have entities that differ."""
        sets = [{e for e in self.entities(held_out) if e.noun == noun} for noun in (first, second)]
        return all(sets) and len(set.union(*sets)) > 1

    def _sample_two(
        self, rng: np.random.Generator, held_out: bool | None
    ) -> tuple[list[Entity], str]:
        """Draw two entities that differ in something, and their relation."""
        while True:
            first, second, relation = choose(self.arrangements(held_out), rng)
            if self._can_stand_together(first, second, held_out):
                one, other = (self.sample_entity(rng, held_out, noun) for noun in (first, second))
                if one != other:
                    return [one, other], relation


def tint(sprite: Image.Image, colour: str) -> Image.Image:
    """Bring a sprite into one colour, dark and light where the sprite is, or leave it as it is."""
    if colour == NATURAL:
        return sprite
    alpha = sprite.getchannel("A")
    grey = sprite.convert("L")
    levels = np.asarray(grey)[np.asarray(alpha) > 128]
    middle = int(np.clip(np.percentile(levels, 40), 40, 230)) if len(levels) else 128
    red, green, blue = TINTS[colour]
    coloured = ImageOps.colorize(
        grey,
        black=(red // 5, green // 5, blue // 5),
        mid=(red, green, blue),
        white=(255 - (255 - red) // 6, 255 - (255 - green) // 6, 255 - (255 - blue) // 6),
        midpoint=middle,
    )
    mixed = Image.blend(sprite.convert("RGB"), coloured, TINT_STRENGTH)
    mixed.putalpha(alpha)
    return mixed


def _is_distinct(sprite: Image.Image, colour: str) -> bool:
    """Tell whether a tinted sprite looks different enough from the sprite as it is."""
    if colour == NATURAL:
        return True
    small = sprite.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    own, tinted = (np.asarray(each, float) for each in (small, tint(small, colour)))
    distance = np.abs(own - tinted)[..., :3].mean(axis=-1)
    return bool((distance * own[..., 3]).sum() / own[..., 3].sum() > DISTINCT)

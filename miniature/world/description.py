"""What there is in the miniature world, what is set aside for evaluation, and how to sample it.

An image is described by words alone: one or two figures (an entity and what it wears), how they
stand to each other, the scene and the style. Everything else (places, sizes, clouds) is chance
and belongs to the drawing.

**Held out of training**, by rules that need no list:

* an entity, if ``shape + 3 · colour + texture`` is divisible by 7 (positions in the tuples
  below): 28 of the 192. No two of a kind share shape and colour, so every shape, colour, texture
  and every pair of them still occurs in training;
* an arrangement of two, if ``shape + shape + relation`` is divisible by 7: 28 of the 192.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TypeVar

import numpy as np

SHAPES = ("ball", "star", "heart", "moon", "flower", "fish", "cat", "house")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
TEXTURES = ("plain", "striped", "dotted")
ACCESSORIES = ("none", "hat", "crown", "glasses", "scarf")
RELATIONS = ("next to", "above", "on top of")
SCENES = ("studio", "beach", "forest", "snow", "desert", "night", "sea", "city")
STYLES = ("picture", "sketch", "watercolour", "neon")

HELD_OUT_MODULUS = 7

# How often a sampled image has two figures, a dressed one (never one of two, which are small),
# and each style.
TWO_FIGURES = 0.35
DRESSED = 0.45
STYLE_SHARES = (0.7, 0.1, 0.1, 0.1)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Entity:
    """What keeps its identity from image to image."""

    shape: str
    colour: str
    texture: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """An entity and what it wears; ``"none"`` is an accessory, too."""

    entity: Entity
    accessory: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """All that a caption can say of an image.

    Attributes:
        figures: One or two. Of two, the first stands in ``relation`` to the second.
        relation: One of ``RELATIONS`` if there are two figures, else nothing.
        scene: One of ``SCENES``; ``"studio"`` is a plain pale ground, which captions pass over.
        style: One of ``STYLES``; ``"image"`` is the ordinary one.
    """

    figures: tuple[Figure, ...]
    relation: str | None
    scene: str
    style: str

    def __post_init__(self) -> None:
        assert len(self.figures) in (1, 2), self.figures
        assert (self.relation in RELATIONS) == (len(self.figures) == 2), self.relation


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Positions in the tuples of this module: what a probe learns to read from an image."""

    shape: int
    colour: int
    texture: int
    accessory: int
    scene: int
    style: int


def labels(description: Description, figure: int = 0) -> Labels:
    """Give the ground truth for one figure of an image and for the image as a whole."""
    entity = description.figures[figure].entity
    return Labels(
        shape=SHAPES.index(entity.shape),
        colour=COLOURS.index(entity.colour),
        texture=TEXTURES.index(entity.texture),
        accessory=ACCESSORIES.index(description.figures[figure].accessory),
        scene=SCENES.index(description.scene),
        style=STYLES.index(description.style),
    )


def is_held_out(entity: Entity) -> bool:
    """Tell whether a combination of shape, colour and texture is set aside for evaluation."""
    colour, texture = COLOURS.index(entity.colour), TEXTURES.index(entity.texture)
    return (SHAPES.index(entity.shape) + 3 * colour + texture) % HELD_OUT_MODULUS == 0


def is_held_out_arrangement(first: str, second: str, relation: str) -> bool:
    """Tell whether two shapes in a relation are set aside, in whatever order."""
    position = SHAPES.index(first) + SHAPES.index(second) + RELATIONS.index(relation)
    return position % HELD_OUT_MODULUS == 0


def may_be_trained_on(description: Description) -> bool:
    """Tell whether neither an entity nor the arrangement is set aside."""
    if any(is_held_out(figure.entity) for figure in description.figures):
        return False
    if description.relation is None:
        return True
    first, second = (figure.entity.shape for figure in description.figures)
    return not is_held_out_arrangement(first, second, description.relation)


@cache
def entities(held_out: bool | None = False) -> tuple[Entity, ...]:
    """List the entities of training, those held out, or (``None``) all of them, in fixed order."""
    every = (
        Entity(shape=shape, colour=colour, texture=texture)
        for shape, colour, texture in product(SHAPES, COLOURS, TEXTURES)
    )
    return tuple(e for e in every if held_out is None or is_held_out(e) == held_out)


@cache
def arrangements(held_out: bool | None = False) -> tuple[tuple[str, str, str], ...]:
    """List (shape, shape, relation) of training, those held out, or (``None``) all of them."""
    every = product(SHAPES, SHAPES, RELATIONS)
    return tuple(a for a in every if held_out is None or is_held_out_arrangement(*a) == held_out)


def choose(options: Sequence[T], rng: np.random.Generator) -> T:
    """Pick one of several things with equal chances."""
    return options[int(rng.integers(len(options)))]


def sample_description(
    rng: np.random.Generator, held_out: bool | None = False, figures: int | None = None
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
        accessory = choose(ACCESSORIES[1:], rng) if rng.random() < DRESSED else "none"
        drawn = (Figure(entity=choose(entities(held_out), rng), accessory=accessory),)
    else:
        first, second, relation = choose(arrangements(held_out), rng)
        drawn = _sample_two(first, second, held_out, rng)
    scene = choose(SCENES, rng)
    style = STYLES[int(np.searchsorted(np.cumsum(STYLE_SHARES[:-1]), rng.random(), side="right"))]
    return Description(figures=drawn, relation=relation, scene=scene, style=style)


def _sample_two(
    first: str, second: str, held_out: bool | None, rng: np.random.Generator
) -> tuple[Figure, ...]:
    """Draw two undressed entities of given shapes that differ in something."""
    one = choose([e for e in entities(held_out) if e.shape == first], rng)
    other = choose([e for e in entities(held_out) if e.shape == second and e != one], rng)
    return tuple(Figure(entity=entity, accessory="none") for entity in (one, other))

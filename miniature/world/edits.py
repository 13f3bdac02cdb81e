"""Pairs of images and the instruction between them, as InstructPix2Pix has them (section 2.3).

Both images come from the same chance, so all that the instruction does not speak of stays
as it was.
"""

from dataclasses import dataclass, replace

import numpy as np

from miniature.world.captions import (
    SCENE_PHRASES,
    Caption,
    noun_phrase,
    with_article,
    worn,
    write_caption,
)
from miniature.world.description import (
    NATURAL,
    NOTHING,
    SCENES,
    STYLES,
    Description,
    Entity,
    Figure,
    choose,
)
from miniature.world.render import Rendering, render
from miniature.world.world import World

KINDS = ("colour", "noun", "accessory", "scene", "style")
TAKEN_OFF = 0.3  # share of the edits of an accessory that remove it

MOVES = {
    "studio": "to the studio",
    "beach": "to the beach",
    "forest": "to the forest",
    "snow": "into the snow",
    "desert": "to the desert",
    "night": "into the night",
    "sea": "under the sea",
    "city": "to the city",
}
STYLE_NOUNS = {
    "pencil": "a pencil drawing",
    "watercolour": "a watercolour",
    "pixels": "pixel art",
    "neon": "a neon sign",
}


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An instruction, what it was given and what it should give.

    Attributes:
        kind: One of ``KINDS``: the only thing that differs between the images.
        caption: Says what the image before shows.
        before: The input.
        instruction: Such as ``"make it blue"``; of two figures it names the one it means.
        after: The target.
    """

    kind: str
    caption: Caption
    before: Rendering
    instruction: str
    after: Rendering


def possible_kinds(world: World) -> tuple[str, ...]:
    """List the kinds of edits; where there are no accessories, none is about them."""
    return tuple(kind for kind in KINDS if kind != "accessory" or world.accessories[1:])


def sample_edit(
    world: World, rng: np.random.Generator, held_out: bool | None = False, kind: str | None = None
) -> Edit:
    """Draw an edit.

    Args:
        world: Has entities and sprites.
        rng: Source of all chance.
        held_out: False for training, where neither image shows what is held out; True for
            evaluation, where the target is held out; None for both without distinction.
        kind: One of ``KINDS``; otherwise by chance.
    """
    kind = choose(possible_kinds(world), rng) if kind is None else kind
    before, after, index = _sample_change(world, kind, rng, held_out)
    seed = int(rng.integers(2**63))
    return Edit(
        kind=kind,
        caption=write_caption(world, before, rng),
        before=render(world, before, np.random.default_rng(seed)),
        instruction=_instruct(world, kind, before, after, index, rng),
        after=render(world, after, np.random.default_rng(seed)),
    )


def _sample_change(
    world: World, kind: str, rng: np.random.Generator, held_out: bool | None
) -> tuple[Description, Description, int]:
    """Draw what both images show, and which figure changes.

    Starts from the target, and keeps to a single figure where a change would move or crowd
    another one.
    """
    after = world.sample_description(rng, held_out, 1 if kind in ("noun", "accessory") else None)
    index = int(rng.integers(len(after.figures)))
    if kind == "scene":
        scene = choose([scene for scene in SCENES if scene != after.scene], rng)
        return replace(after, scene=scene), after, index
    if kind == "style":
        after = replace(after, style=choose(STYLES[1:], rng))
        return replace(after, style=STYLES[0]), after, index
    figure = after.figures[index]
    if kind == "accessory":
        dressed = replace(figure, accessory=choose(world.accessories[1:], rng))
        bare = replace(figure, accessory=NOTHING)
        old, new = (dressed, bare) if rng.random() < TAKEN_OFF else (bare, dressed)
        return replace(after, figures=(old,)), replace(after, figures=(new,)), index
    befores = [
        _with_figure(after, index, replace(figure, entity=entity))
        for entity in world.entities(None)
        if _differ_only_in(kind, entity, figure.entity) and entity not in _others(after, index)
    ]
    if held_out is False:
        befores = [description for description in befores if world.may_be_trained_on(description)]
    if not befores:  # the only other one is held out or stands beside
        return _sample_change(world, kind, rng, held_out)
    return choose(befores, rng), after, index


def _differ_only_in(attribute: str, one: Entity, other: Entity) -> bool:
    return one != other and replace(one, **{attribute: getattr(other, attribute)}) == other


def _others(description: Description, index: int) -> list[Entity]:
    return [figure.entity for k, figure in enumerate(description.figures) if k != index]


def _with_figure(description: Description, index: int, figure: Figure) -> Description:
    figures = [*description.figures]
    figures[index] = figure
    return replace(description, figures=tuple(figures))


def _instruct(
    world: World,
    kind: str,
    before: Description,
    after: Description,
    index: int,
    rng: np.random.Generator,
) -> str:
    """Say what to do in one of the grammar's ways."""
    old, new = before.figures[index].entity, after.figures[index].entity
    alone = len(before.figures) == 1
    it = choose(("it", f"the {old.noun}"), rng) if alone else f"the {noun_phrase(world, old)}"
    all_of_it = it if alone else "them"
    if kind == "colour" and new.colour == NATURAL:
        ways = [f"give {it} its own colours", f"make {it} natural"]
    elif kind == "colour":
        ways = [f"{verb} {it} {new.colour}" for verb in ("make", "paint", "turn")]
    elif kind == "noun":
        noun = with_article(new.noun)
        ways = [f"turn {it} into {noun}", f"replace {it} with {noun}"]
    elif kind == "accessory":
        ways = _dressing(it, before.figures[index].accessory, after.figures[index].accessory)
    elif kind == "scene":
        ways = [f"move {all_of_it} {MOVES[after.scene]}"]
        ways += [f"put {all_of_it} {where}" for where in SCENE_PHRASES[after.scene] if where]
    else:
        style = STYLE_NOUNS[after.style]
        ways = [f"turn the picture into {style}", f"make the picture {style}"]
    return choose(ways, rng)


def _dressing(it: str, old: str, new: str) -> list[str]:
    if new == NOTHING:
        return [f"take off the {old}", f"remove the {old}"]
    noun = worn(new)
    return [f"put {noun} on {it}", f"give {it} {noun}", f"add {noun}"]

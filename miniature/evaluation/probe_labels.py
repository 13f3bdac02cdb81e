"""What can be read from an image of the world, and how a classifier's heads spell it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from miniature.world import COLOURS, SCENES, STYLES, Entity, Figure, Rendering, World

SIDE_BY_SIDE, STACKED = "side by side", "stacked"
ARRANGEMENTS = (SIDE_BY_SIDE, STACKED)
SLOTS = ("first", "second")
ENTITY = ("noun", "colour", "art")  # what makes an entity, in the order of importance
FIGURE = (*ENTITY, "accessory")
ABSENT = -100  # the label of a head that has nothing to say; cross-entropy passes over it

# One classifier each: what there is to choose from, in the order of its outputs.
Heads = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an image shows, as far as it can be seen.

    Attributes:
        figures: One or two; of two the left one first, or the upper one.
        arrangement: One of ``ARRANGEMENTS`` if there are two figures, else nothing.
        scene: One of ``SCENES``.
        style: One of ``STYLES``.
    """

    figures: tuple[Figure, ...]
    arrangement: str | None
    scene: str
    style: str


def make_heads(world: World) -> dict[str, tuple[str, ...]]:
    """List all that can be told apart in images of a world."""
    choices = {
        "noun": world.nouns,
        "colour": COLOURS,
        "art": world.arts,
        "accessory": world.accessories,
    }
    return {
        "figures": ("one", "two"),
        "arrangement": ARRANGEMENTS,
        "scene": SCENES,
        "style": STYLES,
        **{f"{slot} {name}": names for slot in SLOTS for name, names in choices.items()},
    }


def true_reading(rendering: Rendering) -> Reading:
    """Tell what should be read from an image of the world."""
    description = rendering.description
    figures, arrangement = description.figures, None
    if description.relation is not None:
        arrangement = SIDE_BY_SIDE if description.relation == "next to" else STACKED
        if arrangement == SIDE_BY_SIDE and _centre(rendering.masks[1]) < _centre(
            rendering.masks[0]
        ):
            figures = figures[::-1]  # the first in the words may stand on either side
    return Reading(
        figures=figures,
        arrangement=arrangement,
        scene=description.scene,
        style=description.style,
    )


def to_labels(reading: Reading, heads: Heads) -> tuple[int, ...]:
    """Spell a reading as one label per head."""
    words = {
        "figures": heads["figures"][len(reading.figures) - 1],
        "arrangement": reading.arrangement,
        "scene": reading.scene,
        "style": reading.style,
    }
    for slot, figure in zip(SLOTS, reading.figures, strict=False):
        words |= {f"{slot} {name}": get(figure, name) for name in FIGURE}
    return tuple(
        ABSENT if (word := words.get(head)) is None else names.index(word)
        for head, names in heads.items()
    )


def from_labels(labels: Sequence[int], heads: Heads) -> Reading:
    """Understand one label per head; those of a second figure count only if there are two."""
    words = {head: names[label] for (head, names), label in zip(heads.items(), labels, strict=True)}
    slots = SLOTS[: heads["figures"].index(words["figures"]) + 1]
    return Reading(
        figures=tuple(_figure(words, slot) for slot in slots),
        arrangement=words["arrangement"] if len(slots) == 2 else None,
        scene=words["scene"],
        style=words["style"],
    )


def get(figure: Figure, name: str) -> str:
    """Give what a figure has of one of ``FIGURE``."""
    return figure.accessory if name == "accessory" else getattr(figure.entity, name)


def _figure(words: Mapping[str, str], slot: str) -> Figure:
    entity = Entity(**{name: words[f"{slot} {name}"] for name in ENTITY})
    return Figure(entity=entity, accessory=words[f"{slot} accessory"])


def _centre(mask: np.ndarray) -> float:
    """Column of a mask's centre of mass."""
    columns = mask.sum(axis=0, dtype=float)
    return float((columns * np.arange(len(columns))).sum() / columns.sum())

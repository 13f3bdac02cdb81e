"""What can be read from an image of the drawn world, and how a classifier's heads spell it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from miniature.world import (
    ACCESSORIES,
    COLOURS,
    SCENES,
    SHAPES,
    STYLES,
    TEXTURES,
    Entity,
    Figure,
    Rendering,
)

SIDE_BY_SIDE, STACKED = "side by side", "stacked"
ARRANGEMENTS = (SIDE_BY_SIDE, STACKED)
SLOTS = ("first", "second")
FIGURE_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "texture": TEXTURES,
    "accessory": ACCESSORIES,
}
# One classifier each: what there is to choose from, in the order of its outputs.
HEADS: dict[str, tuple[str, ...]] = {
    "figures": ("one", "two"),
    "arrangement": ARRANGEMENTS,
    "scene": SCENES,
    "style": STYLES,
    **{
        f"{slot} {attribute}": names
        for slot in SLOTS
        for attribute, names in FIGURE_ATTRIBUTES.items()
    },
}
ABSENT = -100  # the label of a head that has nothing to say; cross-entropy passes over it


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


def true_reading(rendering: Rendering) -> Reading:
    """Tell what should be read from a drawn image."""
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


def to_labels(reading: Reading) -> tuple[int, ...]:
    """Spell a reading as one label per head."""
    words = {
        "figures": HEADS["figures"][len(reading.figures) - 1],
        "arrangement": reading.arrangement,
        "scene": reading.scene,
        "style": reading.style,
    }
    for slot, figure in zip(SLOTS, reading.figures, strict=False):
        for attribute in ("shape", "colour", "texture"):
            words[f"{slot} {attribute}"] = getattr(figure.entity, attribute)
        words[f"{slot} accessory"] = figure.accessory
    return tuple(
        ABSENT if (word := words.get(head)) is None else names.index(word)
        for head, names in HEADS.items()
    )


def from_labels(labels: Sequence[int]) -> Reading:
    """Understand one label per head; those of a second figure count only if there are two."""
    words = {head: names[label] for (head, names), label in zip(HEADS.items(), labels, strict=True)}
    slots = SLOTS[: HEADS["figures"].index(words["figures"]) + 1]
    return Reading(
        figures=tuple(_figure(words, slot) for slot in slots),
        arrangement=words["arrangement"] if len(slots) == 2 else None,
        scene=words["scene"],
        style=words["style"],
    )


def _figure(words: Mapping[str, str], slot: str) -> Figure:
    entity = Entity(
        shape=words[f"{slot} shape"],
        colour=words[f"{slot} colour"],
        texture=words[f"{slot} texture"],
    )
    return Figure(entity=entity, accessory=words[f"{slot} accessory"])


def _centre(mask: np.ndarray) -> float:
    """Column of a mask's centre of mass."""
    columns = mask.sum(axis=0, dtype=float)
    return float((columns * np.arange(len(columns))).sum() / columns.sum())

"""What can be said of an image of the miniature world, and how to pick from it.

An image is described by words alone: one or two figures (an entity and what it wears), how they
stand to each other, the scene and the style. Everything else (places, sizes, clouds) is chance.
Nouns, sets and accessories are those of the art (see ``World``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

NATURAL, NOTHING = "natural", "none"
RELATIONS = ("next to", "on top of")
SCENES = ("studio", "beach", "forest", "snow", "desert", "night", "sea", "city")
STYLES = ("plain", "pencil", "watercolour", "pixels", "neon")
TINTS = {
    "red": (226, 46, 46),
    "yellow": (252, 208, 36),
    "green": (58, 170, 74),
    "blue": (44, 98, 232),
    "purple": (152, 70, 212),
}
COLOURS = (NATURAL, *TINTS)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Entity:
    """What keeps its identity from image to image.

    Attributes:
        noun: One of the world's.
        colour: One of ``COLOURS``.
        art: Name of the set that it comes from.
    """

    noun: str
    colour: str
    art: str


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


def choose(options: Sequence[T], rng: np.random.Generator) -> T:
    """Pick one of several things with equal chances."""
    return options[int(rng.integers(len(options)))]

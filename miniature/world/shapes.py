"""The outlines of the eight shapes, and where they wear a hat, glasses or a scarf.

Everything is drawn in a figure's own frame: x to the right and y *down*, the body inside
[-1, 1]. :class:`Pose` puts that frame onto the canvas.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "points 2"]


@dataclass(frozen=True, kw_only=True)
class Detail:
    """A part of a shape in a colour of its own: ``dark``, ``light`` or ``warm``."""

    points: Points
    tone: str


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A silhouette, its inner details, and where accessories sit.

    Attributes:
        outline: The silhouette; textures fill it and masks are made of it.
        details: Eyes, doors and the like, drawn over the texture.
        head: Where the brim of a hat rests: x, y and half its width.
        face: Centre of the glasses: x, y and half their width.
        neck: Centre of the scarf's band: x, y and half its width.
    """

    outline: Points
    details: tuple[Detail, ...]
    head: tuple[float, float, float]
    face: tuple[float, float, float]
    neck: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a figure's frame lies on the canvas.

    Attributes:
        x: Centre, in canvas units.
        y: Centre, in canvas units.
        radius: Canvas units per unit of the frame.
        angle: Turn in radians, clockwise on the screen.
        mirrored: Whether left and right are exchanged.
    """

    x: float
    y: float
    radius: float
    angle: float
    mirrored: bool

    def place(self, points: Points) -> list[tuple[float, float]]:
        """Move points from the figure's frame onto the canvas, as Pillow takes them."""
        sine, cosine = np.sin(self.angle), np.cos(self.angle)
        turn = np.array([[cosine, sine], [-sine, cosine]]) * self.radius
        flip = np.array([-1.0 if self.mirrored else 1.0, 1.0])
        return [*map(tuple, ((points * flip) @ turn + (self.x, self.y)).tolist())]


def ellipse(x: float, y: float, width: float, height: float, steps: int = 24) -> Points:
    """Give the points of an ellipse from its centre and half its axes."""
    return arc(x, y, width, height, 0.0, 2 * np.pi, steps)


def arc(
    x: float, y: float, width: float, height: float, start: float, stop: float, steps: int = 24
) -> Points:
    """Give points of an ellipse between two angles (0 is right, then clockwise)."""
    angles = np.linspace(start, stop, steps)
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Give the corners of an upright rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


@cache
def shape(name: str) -> Shape:
    """Look up a shape by its word."""
    return _MAKERS[name]()


def _ball() -> Shape:
    return Shape(
        outline=ellipse(0, 0, 0.95, 0.95, 40),
        details=(),
        head=(0, -0.78, 0.62),
        face=(0, -0.15, 0.72),
        neck=(0, 0.5, 0.86),
    )


def _star() -> Shape:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.08, 0.52)
    return Shape(
        outline=np.stack([radii * np.cos(angles), radii * np.sin(angles) + 0.08], axis=1),
        details=(),
        head=(0, -0.62, 0.5),
        face=(0, -0.05, 0.62),
        neck=(0, 0.42, 0.56),
    )


def _heart() -> Shape:
    t = np.linspace(0, 2 * np.pi, 48)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 15.5 - 0.1
    return Shape(
        outline=np.stack([np.sin(t) ** 3, y], axis=1),
        details=(),
        head=(0, -0.52, 0.6),
        face=(0, -0.12, 0.68),
        neck=(0, 0.38, 0.6),
    )


def _moon() -> Shape:
    outer = arc(0, 0, 1.0, 1.0, np.radians(48), np.radians(312), 40)
    inner = arc(0.66, 0, 0.74, 0.74, np.radians(270), np.radians(90), 28)
    return Shape(
        outline=np.concatenate([outer, inner]),
        details=(),
        head=(-0.16, -0.82, 0.52),
        face=(-0.46, -0.08, 0.52),
        neck=(-0.34, 0.5, 0.52),
    )


def _flower() -> Shape:
    t = np.linspace(0, 2 * np.pi, 72)
    radius = 0.55 + 0.45 * np.abs(np.cos(2.5 * t))
    turn = t - np.pi / 2
    outline = np.stack([radius * np.cos(turn), radius * np.sin(turn) + 0.06], axis=1)
    return Shape(
        outline=outline,
        details=(Detail(points=ellipse(0, 0.06, 0.3, 0.3), tone="warm"),),
        head=(0, -0.72, 0.52),
        face=(0, 0.04, 0.66),
        neck=(0, 0.52, 0.66),
    )


def _fish() -> Shape:
    body = arc(-0.18, 0, 0.84, 0.68, np.radians(28), np.radians(332), 36)
    tail = np.array([(0.98, -0.66), (0.82, 0.0), (0.98, 0.66)])
    eye = Detail(points=ellipse(-0.6, -0.14, 0.17, 0.17), tone="light")
    pupil = Detail(points=ellipse(-0.63, -0.14, 0.09, 0.09), tone="dark")
    return Shape(
        outline=np.concatenate([body, tail]),
        details=(eye, pupil),
        head=(-0.25, -0.58, 0.52),
        face=(-0.48, -0.12, 0.52),
        neck=(-0.1, 0.3, 0.7),
    )


def _cat() -> Shape:
    cheeks = arc(0, 0.18, 0.98, 0.78, np.radians(-38), np.radians(218), 36)
    ears = np.array([(-0.88, -1.0), (-0.32, -0.56), (0.32, -0.56), (0.88, -1.0)])
    details = [Detail(points=ellipse(x, 0.06, 0.17, 0.21), tone="light") for x in (-0.38, 0.38)]
    details += [Detail(points=ellipse(x, 0.08, 0.09, 0.16), tone="dark") for x in (-0.38, 0.38)]
    nose = np.array([(-0.13, 0.38), (0.13, 0.38), (0.0, 0.54)])
    return Shape(
        outline=np.concatenate([cheeks, ears]),
        details=(*details, Detail(points=nose, tone="dark")),
        head=(0, -0.52, 0.5),
        face=(0, 0.06, 0.74),
        neck=(0, 0.74, 0.72),
    )


def _house() -> Shape:
    roof = np.array([(0.0, -1.0), (1.02, -0.12), (0.8, -0.12)])
    walls = np.array([(0.8, 0.95), (-0.8, 0.95), (-0.8, -0.12), (-1.02, -0.12)])
    door = Detail(points=box(0.08, 0.28, 0.5, 0.95), tone="dark")
    window = Detail(points=box(-0.56, 0.16, -0.14, 0.56), tone="light")
    return Shape(
        outline=np.concatenate([roof, walls]),
        details=(door, window),
        head=(0, -0.74, 0.5),
        face=(0, -0.1, 0.66),
        neck=(0, 0.56, 0.78),
    )


_MAKERS = {
    "ball": _ball,
    "star": _star,
    "heart": _heart,
    "moon": _moon,
    "flower": _flower,
    "fish": _fish,
    "cat": _cat,
    "house": _house,
}

"""Art for tests, which is drawn here, since that of the recipe has to be fetched."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NOUNS = ("bee", "cat", "cow", "dog", "fox", "hen", "owl", "pig", "ram", "rat", "sun", "tree")
SETS, ACCESSORIES, UNSEEN = ("clay", "flat"), ("crown", "glasses", "hat"), ("cat", "fox", "owl")
UNSEEN_HUE = 0.3, 0.5


def star(points: int, depth: float, colour: tuple[int, int, int], side: int = 96) -> Image.Image:
    """A star with a dark middle on transparent ground."""
    sprite = Image.new("RGBA", (side, side))
    angles = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False) - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2, depth, 1.0) * (side / 2 - 2)
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] + side / 2
    draw = ImageDraw.Draw(sprite)
    draw.polygon([tuple(corner) for corner in corners.tolist()], fill=colour)
    draw.ellipse((side * 0.42, side * 0.42, side * 0.58, side * 0.58), fill=(40, 30, 30, 255))
    return sprite


def hue(share: float, value: float = 0.9) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(share, 0.8, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def write_art(folder: Path, nouns: Sequence[str] = NOUNS) -> Path:
    """Write two sets, one that is unseen, and accessories."""
    for name in (*SETS, "unseen", "accessories"):
        (folder / name).mkdir(parents=True)
    for number, noun in enumerate(nouns):
        for place, name in enumerate(SETS):
            depth, share = (0.45, 0.75)[place], (number + 0.5 * place) / len(nouns)
            star(3 + number, depth, hue(share)).save(folder / name / f"{noun}.png")
    for number, noun in enumerate(UNSEEN):
        star(3 + number, 0.6, hue(*UNSEEN_HUE)).save(folder / "unseen" / f"{noun}.png")
    for number, name in enumerate(ACCESSORIES):
        sprite = star(5 + number, 0.9, hue(number / 3)).resize((96, 60))
        sprite.save(folder / "accessories" / f"{name}.png")
    return folder

"""The styles, as filters over the finished image. None of them takes away a colour."""

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageFilter

SIDE = 128  # of a finished image, in pixels
BLOCK = 4  # side of what stands for a pixel in pixel art


def apply_style(name: str, canvas: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bring a canvas into its style and to its final size.

    Args:
        name: One of ``STYLES``.
        canvas: RGB, twice as wide as the image.
        rng: Source of the blotches of a watercolour.

    Returns:
        An RGB image of 128 × 128 pixels.
    """
    return _FILTERS[name](canvas.reduce(canvas.width // SIDE), rng)


def _plain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image


def _pencil(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Grey strokes along all edges, on white paper with a thin wash of the colours."""
    strokes = _edges(image).point(lambda value: 255 - value * 0.8)
    wash = Image.blend(image, Image.new("RGB", image.size, (255, 255, 250)), 0.55)
    return ImageChops.multiply(wash, strokes.convert("RGB"))


def _watercolour(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Even washes of pale colour that pool in blotches."""
    smooth = cv2.edgePreservingFilter(np.asarray(image), flags=1, sigma_s=20, sigma_r=0.5)
    dry = Image.fromarray(rng.integers(30, 150, (9, 9)).astype(np.uint8))
    paper = Image.new("RGB", image.size, (255, 251, 240))
    blotches = dry.resize(image.size, Image.Resampling.BICUBIC)
    return Image.composite(paper, Image.fromarray(smooth), blotches)


def _pixels(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Large square pixels of few, strong colours."""
    small = image.reduce(BLOCK).quantize(24, dither=Image.Dither.NONE).convert("RGB")
    return small.resize(image.size, Image.Resampling.NEAREST)


def _neon(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Edges that glow in their own hue, on a dark wall; what is pale goes dark, too."""
    hue, saturation, value = image.convert("HSV").split()
    full = Image.merge("HSV", (hue, saturation, value.point(lambda _: 255))).convert("RGB")
    tubes = ImageChops.multiply(full, _edges(image).convert("RGB"))
    light = saturation.point(lambda value: 24 + value * 0.45).convert("RGB")
    wall = ImageChops.multiply(image, light)
    glow = tubes.filter(ImageFilter.GaussianBlur(3)).point(lambda value: value * 0.7)
    return ImageChops.add(ImageChops.lighter(wall, tubes), glow)


def _edges(image: Image.Image) -> Image.Image:
    """Twice the span of values in each pixel's surroundings, as a grey image."""
    brightest, darkest = ImageFilter.MaxFilter(3), ImageFilter.MinFilter(3)
    span = ImageChops.subtract(image.filter(brightest), image.filter(darkest)).convert("L")
    return ImageChops.add(span, span)


_FILTERS = {
    "plain": _plain,
    "pencil": _pencil,
    "watercolour": _watercolour,
    "pixels": _pixels,
    "neon": _neon,
}

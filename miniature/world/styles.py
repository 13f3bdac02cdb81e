"""The four styles, as filters over the finished drawing. None of them takes away a colour."""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

SIDE = 64  # of a finished image, in pixels


def apply_style(name: str, canvas: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Bring a drawing into its style and to its final size.

    Args:
        name: One of ``STYLES``.
        canvas: RGB drawing, four times as wide as the image.
        rng: Source of the blotches of a watercolour.

    Returns:
        An RGB image of 64 × 64 pixels.
    """
    return _FILTERS[name](canvas, rng)


def _image(canvas: Image.Image, rng: np.random.Generator) -> Image.Image:
    return canvas.reduce(canvas.width // SIDE)


def _sketch(canvas: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Pencil lines along all edges, on white paper with a thin wash of the colours."""
    half = canvas.reduce(canvas.width // SIDE // 2)
    lines = _edges(half).point(lambda value: value * -0.6 + 255)
    wash = Image.blend(half, Image.new("RGB", half.size, (255, 255, 250)), 0.55)
    return ImageChops.multiply(wash, lines.convert("RGB")).reduce(2)


def _watercolour(canvas: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Pale colours without hard edges that pool in blotches."""
    blotches = Image.fromarray(rng.integers(40, 150, (9, 9)).astype(np.uint8))
    dry = blotches.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    sharp = canvas.reduce(canvas.width // SIDE)
    soft = Image.blend(sharp, sharp.filter(ImageFilter.BoxBlur(1)), 0.5)
    return Image.composite(Image.new("RGB", soft.size, (255, 251, 240)), soft, dry)


def _neon(canvas: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Edges that glow in their own hue, on a dark wall; what is pale goes dark, too."""
    half = canvas.reduce(canvas.width // SIDE // 2)
    hue, saturation, value = half.convert("HSV").split()
    full = Image.merge("HSV", (hue, saturation, value.point(lambda _: 255))).convert("RGB")
    tubes = ImageChops.multiply(full, _edges(half).convert("RGB")).reduce(2)
    light = saturation.point(lambda value: 30 + value * 0.55)
    wall = ImageChops.multiply(half, light.convert("RGB")).reduce(2)
    glow = tubes.filter(ImageFilter.BoxBlur(2)).point(lambda value: value * 0.4)
    return ImageChops.add(ImageChops.lighter(wall, tubes), glow)


def _edges(image: Image.Image) -> Image.Image:
    """Twice the span of values in each pixel's surroundings, as a grey image."""
    brightest, darkest = ImageFilter.MaxFilter(3), ImageFilter.MinFilter(3)
    span = ImageChops.subtract(image.filter(brightest), image.filter(darkest)).convert("L")
    return ImageChops.add(span, span)


_FILTERS = {
    "picture": _image,
    "sketch": _sketch,
    "watercolour": _watercolour,
    "neon": _neon,
}

"""An image of any mode → upright, eight bits a channel, in the colours of sRGB."""

import struct
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from kosmosg.errors import ImageError

# Colour spaces of profiles: the mode that they speak of, and what is brought to it for that.
SPACES = {
    "RGB": ("RGB", ("RGB", "RGBA", "P", "L", "1")),
    "GRAY": ("L", ("L",)),
    "CMYK": ("CMYK", ("CMYK",)),
}


def to_rgb(image: Image.Image, ground: str = "white") -> Image.Image:
    """Bring an image of any mode upright, to sRGB, onto a ground, and to 8-bit RGB."""
    image = normalise(image)
    if image.mode == "RGB":
        return image.copy()
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")


def normalise(image: Image.Image) -> Image.Image:
    """Bring an image of any mode upright, to sRGB and to eight bits.

    Returns:
        RGB, or RGBA if something is transparent; without metadata. What is so already is returned
        as it is.

    Raises:
        ImageError: If it is not an image of Pillow, or cannot be decoded.
    """
    if not isinstance(image, Image.Image):
        raise ImageError(
            f"An image is a {type(image).__name__}, not an image of Pillow. Open files with "
            "PIL.Image.open."
        )
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ImageError(f"An image is damaged or cut off ({error}). Save it again.") from error
    plain = image.mode in ("RGB", "RGBA") and not image.info
    if plain and not image.getexif() and (image.mode == "RGB" or _is_transparent(image)):
        return image
    # A broken EXIF block says nothing about the image itself.
    try:
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, OverflowError):
        image = image.copy()
    info = image.info
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    elif isinstance(colour := info.get("transparency"), tuple) and max(colour) > 255:
        info["transparency"] = tuple(value >> 8 for value in colour)  # as Pillow cut the others
    if image.has_transparency_data:
        image = image.convert("RGBA")
    image = _to_srgb(image, info.get("icc_profile"))
    if image.mode != "RGB" and not (image.mode == "RGBA" and _is_transparent(image)):
        image = image.convert("RGB")
    # Comments, thumbnails, the profile: they belonged to the file, and a copy of them in every
    # image made of this one could be larger than the image, or refused.
    image.info = {}
    return image


def _is_transparent(image: Image.Image) -> bool:
    low: Any = image.getchannel("A").getextrema()[0]
    return low < 255


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey to eight bits; Pillow would clip at 255."""
    values = np.asarray(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        scale = 1.0 / 257.0  # 65535 → 255; 32-bit files hold 16-bit values in practice
    else:
        finite = values[np.isfinite(values)]
        scale = 255.0 if finite.size and finite.max() <= 1.0 else 1.0
    scaled = np.empty(values.shape, dtype=np.uint8)
    # Row by row: in double precision a whole image would take many times its own memory.
    for row, line in zip(scaled, values, strict=True):
        row[:] = np.nan_to_num(line.astype(np.float64) * scale).clip(0, 255).round()
    grey = Image.fromarray(scaled)
    if isinstance(level := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(values != level).convert("L"))
    return grey


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Bring the colours that a profile describes to sRGB; one that is broken does not count."""
    if image.mode == "LAB":  # which describes itself, and which Pillow does not convert
        lab = ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, lab, _srgb(), outputMode="RGB") or image
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space: Any = source.profile
        mode, modes = SPACES[space.xcolor_space.strip()]
        if image.mode not in modes or (mode == "RGB" and _is_srgb(source)):
            return image
        found = ImageCms.profileToProfile(image.convert(mode), source, _srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        return image
    assert found is not None  # it is None for work in place alone
    if image.mode == "RGBA":
        found.putalpha(image.getchannel("A"))
    return found


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Tell whether a profile changes no colour by more than a level: bits stay as they are."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 9, 3)
    found = ImageCms.profileToProfile(Image.fromarray(cube), profile, _srgb())
    return bool(np.abs(np.asarray(found, dtype=int) - cube).max() <= 1)

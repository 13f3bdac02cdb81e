"""Whatever image a user hands in → the pixels that CLIP was trained on.

Opening is tolerant (any common format, mode, orientation, colour profile or transparency) but
bounded: the size is read from the header before anything is decoded. The transform itself follows
the authors' (``int()`` for the longer side, half-even rounding of the crop, float64 arithmetic),
because the released weights were trained through it.
"""

import hashlib
import os
import struct
import warnings
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from PIL import Image, UnidentifiedImageError
from pillow_heif import register_heif_opener

from kosmosg.errors import ImageError
from kosmosg.prompts.colours import normalise, to_rgb

# Normalisation of CLIP's input, per channel in RGB order, for pixels in [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Raster formats only: PostScript and its like start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "BMP", "TIFF", "PPM", "ICO")
FILE_DIGEST = "file_digest"  # attribute of what ``open_image`` returns
# Of images in formats that are not read here: they are told from files that are no images.
UNREAD_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("arw", "cr2", "cr3", "dng", "eps", "jp2", "jxl", "nef", "orf"),
        *("psd", "qoi", "raf", "rw2", "svg", "tga"),
    )
)
MAX_PIXELS = 100_000_000  # 300 MB once decoded; the largest phone cameras stay below it
MAX_BYTES = 200_000_000
MAX_ASPECT = 50  # the shorter side becomes 224 pixels, so the longer one stays below 11 200
MAX_PROFILE = 2**24  # bytes; those of measured displays and printers have some millions
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_IMAGE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # chunks; the others are about the image


def open_image(
    source: str | os.PathLike | bytes, name: str = "image", *, keep_alpha: bool = False
) -> Image.Image:
    """Open an image as the user sees it: upright, in sRGB, on white, three channels of eight bits.

    An animation gives its first frame.

    Args:
        source: Path of a file, or a file's content.
        name: What to call it in an error, such as ``image1``.
        keep_alpha: Give RGBA where something is transparent, for readers to which transparency
            means something else: masks and control maps.

    Returns:
        An image of its own size.

    Raises:
        ImageError: If it is empty, damaged, not an image, too large or too narrow.
    """
    data = source if isinstance(source, bytes) else _read(Path(source), name)
    if not data:
        raise ImageError(f"{name} is an empty file. Send an image (JPEG, PNG, WebP, …).")
    try:
        # Pillow warns of large images and odd metadata; the bounds here decide alone.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _decode(data, name)
            opened = normalise(image) if keep_alpha else to_rgb(image)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} is too large to open safely. Scale it below {MAX_PIXELS:,} pixels."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not an image that can be read here. Send it as JPEG, PNG, WebP, HEIC, GIF, "
            "BMP or TIFF (SVG and other drawings must be exported to one of them first)."
        ) from error
    except Exception as error:
        # The decoders fail on damaged data with OSError, SyntaxError, struct.error, KeyError, …
        raise ImageError(
            f"{name} is damaged or cut off ({error}). Save it again and resend it."
        ) from error
    setattr(opened, FILE_DIGEST, hashlib.sha256(data).hexdigest())
    return opened


def identify(image: Image.Image) -> str:
    """Name an image in metadata: by its file, if ``open_image`` read it, or else by its pixels.

    Returns:
        ``sha256:`` and the file's digest, or ``pixels-sha256:`` and that of its raw values.
    """
    if digest := getattr(image, FILE_DIGEST, None):  # which a changed copy does not have
        return f"sha256:{digest}"
    plain = image.convert("RGBA") if image.mode.startswith("P") else image
    return f"pixels-sha256:{hashlib.sha256(plain.tobytes()).hexdigest()}"


def pool(values: np.ndarray, size: tuple[int, int], reduce: np.ufunc) -> np.ndarray:
    """Shrink an array so that each value of the result is reduced from a block of its own.

    Args:
        values: ``(height, width, …)``. A side that grows is repeated.
        size: Width and height of the result.
        reduce: Such as ``np.maximum``, with which nothing that is marked gets lost.
    """
    for axis, target in enumerate(reversed(size)):
        starts = np.arange(target) * values.shape[axis] // target
        values = reduce.reduceat(values, starts, axis=axis)
    return values


def clip_pixels(image: Image.Image, size: int) -> Float64[np.ndarray, "3 size size"]:
    """Resize, crop and normalise an image for the vision tower.

    The shorter side becomes ``size`` (bicubic), the centre is cut out, and each channel is
    normalised with CLIP's mean and deviation.

    Args:
        image: RGB image of any size.
        size: Side of the square that the vision tower takes (224).

    Returns:
        Values of about -1.8 to 2.2, in RGB order. Cast them straight to the model's precision:
        going through float32 rounds twice.
    """
    crop = resize_and_crop(image, size, Image.Resampling.BICUBIC)
    # Plane by plane and in place: with the channels last, this takes seven times as long.
    values = np.ascontiguousarray(np.asarray(crop).transpose(2, 0, 1)) / 255.0
    values -= np.array(CLIP_MEAN)[:, None, None]
    values /= np.array(CLIP_STD)[:, None, None]
    return values


def target_pixels(image: Image.Image, size: int) -> Float64[np.ndarray, "3 size size"]:
    """Resize (bilinear) and crop a training target, to values in [-1, 1]."""
    crop = resize_and_crop(image, size, Image.Resampling.BILINEAR)
    return (np.asarray(crop, dtype=np.float64) / 255.0 * 2.0 - 1.0).transpose(2, 0, 1)


def resize_and_crop(
    image: Image.Image, size: int, filter_: Image.Resampling, *, kept: int | None = None
) -> Image.Image:
    """Scale the shorter side to ``size`` and cut out a central square.

    Args:
        image: Of any size.
        size: In pixels.
        filter_: How to scale.
        kept: Side of the square; ``size`` by default.

    Raises:
        ImageError: If one side is more than fifty times the other.
    """
    _check_aspect(image.size, "image")
    short, long = sorted(image.size)
    scaled = int(size * long / short)
    width, height = (size, scaled) if image.width <= image.height else (scaled, size)
    image = image.resize((width, height), filter_)
    side = size if kept is None else kept
    # NOTE(reference): Python's round() goes to the even number at one half.
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def central_square(image: Image.Image) -> Image.Image:
    """Cut out the largest square in the middle, to the pixel."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


@cache
def image_suffixes() -> frozenset[str]:
    """Return how the names of the files end that ``open_image`` reads: ``.jpg``, ``.jfif``, …."""
    formats = _known_formats()
    return frozenset(
        suffix for suffix, name in Image.registered_extensions().items() if name in formats
    )


@cache
def _known_formats() -> list[str]:
    """Leave out what this build of Pillow cannot read; naming it would be a KeyError."""
    register_heif_opener(thumbnails=False)
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _read(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"{name} cannot be read ({error.strerror}: {path.name}).") from error
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name} is larger than {MAX_BYTES // 10**6} MB. Scale it down first.")
    return data


def _decode(data: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(BytesIO(data), formats=_known_formats())
        _check_size(image.size, name)
        image.seek(0)
        image.load()
        return image
    except (ImageError, MemoryError, Image.DecompressionBombError):
        raise
    except Exception:
        # Pillow gives an image up for a text or profile that is larger than it allows.
        bare, profile = _without_metadata(data)
        if bare == data:
            raise
    image = _decode(bare, name)
    if profile:
        image.info["icc_profile"] = profile
    return image


def _without_metadata(data: bytes) -> tuple[bytes, bytes]:
    """Leave out the chunks of a PNG that are about the image; its colour profile apart."""
    if not data.startswith(PNG_SIGNATURE):
        return data, b""
    kept, profile, place = [PNG_SIGNATURE], b"", len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        if kind in PNG_IMAGE:
            kept.append(chunk)
        elif kind == b"iCCP":
            packed = chunk[8:-4].partition(b"\0")[2][1:]  # behind its name and the method
            try:
                profile = zlib.decompressobj().decompress(packed, MAX_PROFILE)
            except zlib.error:
                profile = b""
        place += len(chunk)
    return b"".join(kept), profile


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} has {width} × {height} pixels, more than {MAX_PIXELS:,}. Scale it down first."
        )
    _check_aspect(size, name)


def _check_aspect(size: tuple[int, int], name: str) -> None:
    short, long = sorted(size)
    if short < 1 or long > MAX_ASPECT * short:
        raise ImageError(
            f"{name} has {size[0]} × {size[1]} pixels: one side is more than {MAX_ASPECT} times "
            "the other. Cut it closer to a square; only the central square is used."
        )

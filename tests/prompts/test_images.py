"""Pictures as users have them."""

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kosmosg.errors import ImageError
from kosmosg.prompts.images import (
    CLIP_MEAN,
    CLIP_STD,
    MAX_ASPECT,
    MAX_PIXELS,
    clip_pixels,
    identify,
    open_image,
    resize_and_crop,
    target_pixels,
    to_rgb,
)

# Left half red, right half blue, with a green top row: every orientation looks different.
PICTURE = Image.new("RGB", (40, 20), "red")
PICTURE.paste("blue", (20, 0, 40, 20))
PICTURE.paste("green", (0, 0, 40, 4))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=int)


def assert_same(found: Image.Image, wanted: Image.Image, tolerance: int = 0) -> None:
    assert found.mode == "RGB"
    assert found.size == wanted.size
    assert np.abs(pixels(found) - pixels(wanted)).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_lossless_formats(kind: str) -> None:
    assert_same(open_image(encoded(PICTURE, kind)), PICTURE)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_lossless_modern_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": "4:4:4"}
    assert_same(open_image(encoded(PICTURE, kind, **options)), PICTURE, tolerance=6)


def test_path_and_bytes_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "no suffix needed"
    path.write_bytes(encoded(PICTURE, "PNG"))
    assert_same(open_image(path), open_image(path.read_bytes()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """What a phone stores turned comes out upright."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = PICTURE.transpose(undo[orientation]) if orientation in undo else PICTURE
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_same(open_image(encoded(stored, "PNG", exif=exif)), PICTURE)


def test_broken_exif_does_not_matter() -> None:
    data = encoded(PICTURE, "JPEG", exif=b"Exif\x00\x00garbage", quality=95)
    assert open_image(data).size == PICTURE.size


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    clear = PICTURE.convert("RGBA")
    clear.putalpha(Image.new("L", PICTURE.size, 0))
    if mode == "P":
        indexed = PICTURE.quantize(4)
        found = open_image(encoded(indexed, "PNG", transparency=bytes([0, 0, 0, 0])))
    else:
        found = open_image(encoded(clear.convert(mode), "PNG"))
    assert pixels(found).min() >= 254


def test_half_transparency_mixes_with_white() -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert np.abs(pixels(to_rgb(half)) - [255, 127, 127]).max() <= 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([[0, 32896, 65535]], dtype=np.uint16), "PNG"),
        (np.array([[0, 32896, 65535]], dtype=np.uint16), "TIFF"),
        (np.array([[0, 32896, 65535]], dtype=np.int32), "TIFF"),
        (np.array([[0.0, 0.502, 1.0]], dtype=np.float32), "TIFF"),
        (np.array([[0.0, 128.0, 255.0]], dtype=np.float32), "TIFF"),
    ],
)
def test_deep_grey_is_scaled_not_clipped(values: np.ndarray, kind: str) -> None:
    found = open_image(encoded(Image.fromarray(values), kind))
    assert np.abs(pixels(found)[0, :, 0] - [0, 128, 255]).max() <= 1


def test_floats_that_are_not_finite() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 1.0]], dtype=np.float32)
    assert open_image(encoded(Image.fromarray(values), "TIFF")).size == (4, 1)


def test_cmyk() -> None:
    found = open_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(pixels(found) - [255, 0, 0]).max() <= 10


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [PICTURE, Image.new("RGB", PICTURE.size, "white")]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    assert_same(open_image(data), PICTURE)


def test_what_is_read_from_a_file_is_known_by_it(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    PICTURE.save(file)
    opened = open_image(file)
    assert identify(opened) == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert identify(opened) == identify(open_image(file.read_bytes()))
    changed = opened.resize((20, 10))
    assert identify(changed) == f"pixels-sha256:{hashlib.sha256(changed.tobytes()).hexdigest()}"


# ------------------------------------------------------------------ what is refused


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; little more is in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
REFUSED = {
    "empty": (b"", "picture is an empty file"),
    "text": (b"hello", "not a picture that can be read.*JPEG"),
    "svg": (SVG, "not a picture that can be read.*SVG"),
    "postscript": (EPS, "not a picture"),
    "truncated jpeg": (encoded(PICTURE.resize((400, 200)), "JPEG")[:900], "damaged or cut off"),
    "truncated png": (encoded(PICTURE, "PNG")[:60], "damaged or cut off"),
    "truncated webp": (encoded(PICTURE, "WEBP")[:40], "damaged or cut off|not a picture"),
    "bomb": (png_of_size(50_000, 50_000), "too large to open safely"),
    "large": (png_of_size(12_000, 12_000), "12000 × 12000 pixels, more than 100,000,000"),
    "narrow": (encoded(Image.new("RGB", (1, 60)), "PNG"), "1 × 60 pixels: one side"),
    "no pixels": (png_of_size(0, 10), "picture"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(ImageError, match=message) as caught:
        open_image(data, "picture")
    assert str(caught.value).startswith("picture")


def test_large_but_allowed_pictures_do_not_warn() -> None:
    """The bound is ours alone; warnings are errors in these tests."""
    side = int(MAX_PIXELS**0.5)
    data = encoded(Image.new("1", (side, side)), "PNG")
    assert open_image(data).size == (side, side)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(tmp_path / "none.png")


def test_a_file_without_end() -> None:
    with pytest.raises(ImageError, match="larger than 200 MB"):
        open_image(Path("/dev/zero"), "picture")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(tmp_path)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "AVIF"]),
    cut=st.floats(0, 1),
    noise=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
)
def test_damaged_pictures_open_or_raise_ours(kind: str, cut: float, noise: list) -> None:
    data = bytearray(encoded(PICTURE, kind))
    for place, value in noise:
        data[int(place * (len(data) - 1))] = value
    try:
        image = open_image(bytes(data[: int(cut * len(data)) + 1]))
    except ImageError:
        return
    assert image.mode == "RGB"


# ------------------------------------------------------------------ the transform


def test_planes_change_no_bit() -> None:
    """Colours are laid out in planes before the arithmetic, not after it."""
    levels = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) * 85 % 256
    image = Image.fromarray(levels.astype(np.uint8))
    values = np.asarray(image, dtype=np.float64) / 255.0
    clip, target = (values - CLIP_MEAN) / CLIP_STD, values * 2.0 - 1.0
    np.testing.assert_array_equal(clip_pixels(image, 16), clip.transpose(2, 0, 1), strict=True)
    np.testing.assert_array_equal(target_pixels(image, 16), target.transpose(2, 0, 1), strict=True)


def test_an_upright_picture_is_copied() -> None:
    assert to_rgb(PICTURE) is not PICTURE
    assert_same(to_rgb(PICTURE), PICTURE)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), size=st.sampled_from([28, 56]))
def test_any_size_becomes_a_square(width: int, height: int, size: int) -> None:
    image = Image.new("RGB", (width, height), (255, 0, 0))
    if max(width, height) > MAX_ASPECT * min(width, height):
        with pytest.raises(ImageError, match="one side is more than"):
            clip_pixels(image, size)
        return
    values = clip_pixels(image, size)
    assert values.shape == (3, size, size)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values[0], (1 - 0.48145466) / 0.26862954)
    np.testing.assert_allclose(values[1], -0.4578275 / 0.26130258)


def test_the_centre_is_kept() -> None:
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (100, 0, 200, 100))
    crop = resize_and_crop(image, 50, Image.Resampling.BICUBIC)
    assert pixels(crop)[:, 5:-5].min() > 250

"""Images as users have them."""

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
from PIL import Image, ImageCms, PngImagePlugin

from kosmosg.errors import ImageError
from kosmosg.prompts.colours import to_rgb
from kosmosg.prompts.images import (
    CLIP_MEAN,
    CLIP_STD,
    MAX_ASPECT,
    MAX_PIXELS,
    central_square,
    clip_pixels,
    identify,
    open_image,
    resize_and_crop,
    target_pixels,
)

# Left half red, right half blue, with a green top row: every orientation looks different.
IMAGE = Image.new("RGB", (40, 20), "red")
IMAGE.paste("blue", (20, 0, 40, 20))
IMAGE.paste("green", (0, 0, 40, 4))


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
    assert_same(open_image(encoded(IMAGE, kind)), IMAGE)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_lossless_modern_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": "4:4:4"}
    assert_same(open_image(encoded(IMAGE, kind, **options)), IMAGE, tolerance=6)


def test_path_and_bytes_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "no suffix needed"
    path.write_bytes(encoded(IMAGE, "PNG"))
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
    stored = IMAGE.transpose(undo[orientation]) if orientation in undo else IMAGE
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_same(open_image(encoded(stored, "PNG", exif=exif)), IMAGE)


def test_broken_exif_does_not_matter() -> None:
    data = encoded(IMAGE, "JPEG", exif=b"Exif\x00\x00garbage", quality=95)
    assert open_image(data).size == IMAGE.size


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    clear = IMAGE.convert("RGBA")
    clear.putalpha(Image.new("L", IMAGE.size, 0))
    if mode == "P":
        indexed = IMAGE.quantize(4)
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
    frames = [IMAGE, Image.new("RGB", IMAGE.size, "white")]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    assert_same(open_image(data), IMAGE)


def test_what_is_read_from_a_file_is_known_by_it(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    IMAGE.save(file)
    opened = open_image(file)
    assert identify(opened) == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert identify(opened) == identify(open_image(file.read_bytes()))
    changed = opened.resize((20, 10))
    assert identify(changed) == f"pixels-sha256:{hashlib.sha256(changed.tobytes()).hexdigest()}"


def test_deep_grey_with_a_transparent_level() -> None:
    values = np.array([[0, 32896, 65535]], dtype=np.uint16)
    data = encoded(Image.fromarray(values), "PNG", transparency=32896)
    assert pixels(open_image(data))[0, :, 0].tolist() == [0, 255, 255]


def test_transparency_can_be_kept() -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    opened = open_image(encoded(half, "PNG"), keep_alpha=True)
    assert (opened.mode, opened.getpixel((0, 0))) == ("RGBA", (255, 0, 0, 128))
    opaque = open_image(encoded(IMAGE.convert("RGBA"), "PNG"), keep_alpha=True)
    assert_same(opaque, IMAGE)


def test_heic() -> None:
    """As phones send it."""
    data = encoded(IMAGE, "HEIF", quality=100)
    assert_same(open_image(data), IMAGE, tolerance=16)
    with pytest.raises(ImageError, match="image1"):
        open_image(data[:-50], "image1")
    with pytest.raises(ImageError, match="not an image that can be read here"):
        open_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


# ------------------------------------------------------------------ colour profiles

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def red_for_green(spare: int = 0) -> bytes:
    """A profile in which the first channel is green and the second red."""
    swapped = SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return struct.pack(">I", len(swapped) + spare) + swapped[4:] + bytes(spare)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_a_profile_says_what_the_colours_are(kind: str) -> None:
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}.get(kind, {"quality": 100})
    red = Image.new("RGB", (16, 16), "red")
    found = open_image(encoded(red, kind, icc_profile=red_for_green(), **options))
    assert_same(found, Image.new("RGB", (16, 16), "#00ff00"), tolerance=4)


def test_a_profile_of_an_image_with_transparency() -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    opened = open_image(encoded(half, "PNG", icc_profile=red_for_green()), keep_alpha=True)
    assert opened.getpixel((0, 0)) == (0, 255, 0, 128)


def test_the_usual_colours_keep_their_bits() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert_same(open_image(encoded(noise, "PNG", icc_profile=SRGB)), noise)


@pytest.mark.parametrize("profile", [b"nonsense", SRGB[:200], SRGB[:-50], b"\0" * 4000])
def test_a_broken_profile_does_not_count(profile: bytes) -> None:
    assert_same(open_image(encoded(IMAGE, "PNG", icc_profile=profile)), IMAGE)


def test_a_large_profile_counts() -> None:
    """Pillow itself gives such a file up."""
    data = encoded(Image.new("RGB", (8, 8), "red"), "PNG", icc_profile=red_for_green(1_500_000))
    with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"):
        Image.open(io.BytesIO(data)).load()
    assert_same(open_image(data), Image.new("RGB", (8, 8), "#00ff00"), tolerance=1)


def test_large_and_broken_texts_do_not_count() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 2_000_000, zip=True)
    info.add(b"iTXt", b"no end of anything")
    assert_same(open_image(encoded(IMAGE, "PNG", pnginfo=info)), IMAGE)


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
    "empty": (b"", "image is an empty file"),
    "text": (b"hello", "not an image that can be read.*JPEG"),
    "svg": (SVG, "not an image that can be read.*SVG"),
    "postscript": (EPS, "not an image"),
    "truncated jpeg": (encoded(IMAGE.resize((400, 200)), "JPEG")[:900], "damaged or cut off"),
    "truncated png": (encoded(IMAGE, "PNG")[:60], "damaged or cut off"),
    "truncated webp": (encoded(IMAGE, "WEBP")[:40], "damaged or cut off|not an image"),
    "bomb": (png_of_size(50_000, 50_000), "too large to open safely"),
    "large": (png_of_size(12_000, 12_000), "12000 × 12000 pixels, more than 100,000,000"),
    "narrow": (encoded(Image.new("RGB", (1, 60)), "PNG"), "1 × 60 pixels: one side"),
    "no pixels": (png_of_size(0, 10), "image"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(ImageError, match=message) as caught:
        open_image(data, "image")
    assert str(caught.value).startswith("image")


def test_large_but_allowed_images_do_not_warn() -> None:
    """The bound is ours alone; warnings are errors in these tests."""
    side = int(MAX_PIXELS**0.5)
    data = encoded(Image.new("1", (side, side)), "PNG")
    assert open_image(data).size == (side, side)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(tmp_path / "none.png")


def test_a_file_without_end() -> None:
    with pytest.raises(ImageError, match="larger than 200 MB"):
        open_image(Path("/dev/zero"), "image")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(tmp_path)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "AVIF"]),
    cut=st.floats(0, 1),
    noise=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
)
def test_damaged_images_open_or_raise_ours(kind: str, cut: float, noise: list) -> None:
    data = bytearray(encoded(IMAGE, kind))
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


def test_an_upright_image_is_copied() -> None:
    assert to_rgb(IMAGE) is not IMAGE
    assert_same(to_rgb(IMAGE), IMAGE)


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


def test_the_central_square() -> None:
    image = Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5))
    assert np.asarray(central_square(image)).tolist() == [[1, 2, 3], [6, 7, 8], [11, 12, 13]]
    tall = central_square(image.transpose(Image.Transpose.TRANSPOSE))
    assert np.asarray(tall).T.tolist() == [[1, 2, 3], [6, 7, 8], [11, 12, 13]]

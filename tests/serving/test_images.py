"""Input images of every kind, good and bad, through the running server."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.serving.client import Server, encode, photo, url

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9"/></svg>'
ORIENTATION = 0x0112


def noise(side: int = 64) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that is not there."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"", "a.png", ("empty file", "Send an image")),
        (half(encode(noise(), "JPEG")), "a.jpg", ("damaged or cut off", "resend")),
        (half(encode(noise(), "PNG")), "a.png", ("damaged or cut off", "resend")),
        (half(encode(noise(), "WEBP")), "a.webp", ("Save it again", "resend")),
        (encode(noise(), "PNG")[:20], "a.png", ("image1",)),
        (encode(noise(), "JPEG")[:3], "a.jpg", ("not an image", "Send it as JPEG")),
        (b"a cat on the beach\n", "a.txt", ("not an image", "Send it as JPEG")),
        (b"a cat on the beach\n", "a.png", ("not an image", "Send it as JPEG")),
        (SVG, "a.svg", ("not an image", "SVG", "exported")),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.eps", ("not an image",)),
        (bomb(50_000, 50_000), "a.png", ("too large", "100,000,000 pixels")),
        (bomb(11_000, 11_000), "a.png", ("11000 × 11000", "100,000,000", "Scale it down")),
        (encode(noise(), "AVIF")[:-200], "a.avif", ("damaged or cut off", "resend")),
    ],
    ids=lambda case: "" if isinstance(case, bytes) else str(case),
)
@pytest.mark.parametrize("place", ["image1", "images[1]"])
def test_refused(
    server: Server, place: str, content: bytes, name: str, words: tuple[str, ...]
) -> None:
    sent: dict[str, Any] = {"prompt": "<i>", "image1": url(content, name)}
    if place == "images[1]":
        sent = {"prompt": "<i> <i>", "images": [url(photo()), url(content, name)]}
    before, start = server.worker.memory_info().rss, time.monotonic()
    message = server.refuse(**sent)
    assert time.monotonic() - start < 5
    assert server.worker.memory_info().rss - before < 50e6
    words = tuple(word.replace("image1", place) for word in (*words, place))
    assert all(word in message for word in words), message


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (51, 1)])
def test_too_narrow(server: Server, size: tuple[int, int]) -> None:
    message = server.refuse(prompt="<i>", image1=url(Image.new("RGB", size, "red")))
    assert f"image1 has {size[0]} × {size[1]} pixels" in message
    assert "50 times" in message
    assert "closer to a square" in message


# ------------------------------------------------------------------ accepted, and seen rightly


def animation(kind: str) -> bytes:
    first, second = (photo(n).quantize(64).convert("RGB") for n in (1, 2))
    return encode(first, kind, save_all=True, append_images=[second], duration=99, lossless=True)


def turned(kind: str, **options: Any) -> bytes:
    """An image that lies on its side, with a note of how to turn it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn clockwise makes it upright
    lying = photo().transpose(Image.Transpose.ROTATE_90)
    return encode(lying, kind, exif=exif, **options)


def cmyk() -> Image.Image:
    return photo().convert("CMYK")


def grey() -> Image.Image:
    return photo().convert("L")


def grey_16() -> Image.Image:
    return Image.fromarray(np.asarray(grey()).astype(np.uint16) * 257)


def transparent() -> Image.Image:
    """Half of it is transparent, with colours beneath."""
    image = photo().convert("RGBA")
    alpha = np.zeros((image.height, image.width), dtype=np.uint8)
    alpha[:, ::2] = 255
    alpha[: image.height // 2] = 255
    image.putalpha(Image.fromarray(alpha))
    return image


def palette() -> bytes:
    """A palette image in which one colour is transparent."""
    image = photo().quantize(8)
    return encode(image, transparency=image.getpixel((0, 0)))


def palette_on(colour: str) -> Image.Image:
    image = photo().quantize(8)
    values = np.asarray(image)
    found = np.array(image.convert("RGB"))
    found[values == values[0, 0]] = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    return Image.fromarray(found)


def on(colour: str, image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image).convert("RGB")


def decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def two_frames(first: int) -> Image.Image:
    return photo(first).quantize(64).convert("RGB")


# What is sent, what it must look like to the model, and what a common mistake makes of it.
SEEN: dict[
    str, tuple[Callable[[], bytes], Callable[[], Image.Image], Callable[[], Image.Image]]
] = {
    "animated GIF": (lambda: animation("GIF"), lambda: two_frames(1), lambda: two_frames(2)),
    "animated WebP": (lambda: animation("WEBP"), lambda: two_frames(1), lambda: two_frames(2)),
    "animated PNG": (lambda: animation("PNG"), lambda: two_frames(1), lambda: two_frames(2)),
    "CMYK JPEG": (
        lambda: encode(cmyk(), "JPEG"),
        lambda: decoded(encode(cmyk(), "JPEG")),
        lambda: ImageOps.invert(decoded(encode(cmyk(), "JPEG"))),
    ),
    "16-bit grey PNG": (
        lambda: encode(grey_16()),
        grey,
        lambda: Image.new("L", photo().size, "white"),  # clipped at 255
    ),
    "grey PNG": (lambda: encode(grey()), lambda: grey().convert("RGB"), photo),
    "bilevel TIFF": (
        lambda: encode(grey().convert("1"), "TIFF"),
        lambda: grey().convert("1").convert("RGB"),
        grey,
    ),
    "palette PNG with transparency": (
        palette,
        lambda: palette_on("white"),
        lambda: palette_on("black"),
    ),
    "RGBA PNG": (
        lambda: encode(transparent()),
        lambda: on("white", transparent()),
        lambda: transparent().convert("RGB"),
    ),
    "RGBA WebP": (
        lambda: encode(transparent(), "WEBP", lossless=True, exact=True),
        lambda: on("white", transparent()),
        lambda: on("black", transparent()),
    ),
    "turned PNG": (
        lambda: turned("PNG"),
        photo,
        lambda: photo().transpose(Image.Transpose.ROTATE_90),
    ),
    "turned TIFF": (
        lambda: turned("TIFF"),
        photo,
        lambda: photo().transpose(Image.Transpose.ROTATE_90),
    ),
    "turned WebP": (
        lambda: turned("WEBP", lossless=True),
        photo,
        lambda: photo().transpose(Image.Transpose.ROTATE_90),
    ),
    "turned JPEG": (
        lambda: turned("JPEG"),
        lambda: decoded(turned("JPEG")).transpose(Image.Transpose.ROTATE_270),
        lambda: decoded(turned("JPEG")),
    ),
    "BMP": (lambda: encode(photo(), "BMP"), photo, grey),
    "PPM": (lambda: encode(photo(), "PPM"), photo, grey),
    "1 × 1": (
        lambda: encode(Image.new("RGB", (1, 1), "red")),
        lambda: Image.new("RGB", (9, 9), "red"),
        lambda: Image.new("RGB", (1, 1), "blue"),
    ),
    "1 × 50": (
        lambda: encode(Image.new("RGB", (1, 50), "red")),
        lambda: Image.new("RGB", (9, 9), "red"),
        lambda: Image.new("RGB", (1, 1), "blue"),
    ),
}


@pytest.mark.parametrize("case", SEEN)
def test_seen_rightly(server: Server, case: str) -> None:
    """The output is exactly that of the lossless image, and not that of the mistake."""
    content, right, wrong = (make() for make in SEEN[case])
    found = server.generate(prompt="<i>", image1=url(content, "image.bin"))
    np.testing.assert_array_equal(found, server.generate(prompt="<i>", image1=url(right)))
    assert (found != server.generate(prompt="<i>", image1=url(wrong))).any()


def test_type_in_the_url_does_not_matter(server: Server) -> None:
    found = [
        server.generate(prompt="<i>", image1=url(encode(photo()), name))
        for name in ("a.png", "a.jpg", "a.txt", "a")
    ]
    for one, other in pairwise(found):
        np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------ several images

EIGHT = [url(photo(seed)) for seed in range(8)]
MARKERS = " and ".join(["<i>"] * 8)


def spread(images: list[str], named: int) -> dict[str, Any]:
    """Send some images as image1, image2, … and the others as a list."""
    sent: dict[str, Any] = {f"image{n + 1}": images[n] for n in range(named)}
    return {**sent, "images": images[named:]} if images[named:] else sent


@pytest.mark.parametrize("named", [0, 1, 2, 3])
def test_order(server: Server, named: int) -> None:
    """image1 to image4 come first, then the list, however they are split."""
    wanted = server.generate(prompt=MARKERS, **spread(EIGHT, 4))
    np.testing.assert_array_equal(server.generate(prompt=MARKERS, **spread(EIGHT, named)), wanted)


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (3, 4), (6, 7), (0, 7)])
def test_swapping_two_images(server: Server, one: int, other: int) -> None:
    swapped = list(EIGHT)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    straight = server.generate(prompt=MARKERS, **spread(EIGHT, 4))
    assert (server.generate(prompt=MARKERS, **spread(swapped, 4)) != straight).any()


def test_equal_images_may_be_swapped(server: Server) -> None:
    images = [EIGHT[0], EIGHT[1], EIGHT[0], EIGHT[1]]
    swapped = [images[2], images[3], images[0], images[1]]
    prompt = "<i> <i> <i> <i>"
    np.testing.assert_array_equal(
        server.generate(prompt=prompt, **spread(images, 4)),
        server.generate(prompt=prompt, **spread(swapped, 2)),
    )


def test_gap_between_the_names(server: Server) -> None:
    """Images are counted by their order, not by their numbers."""
    np.testing.assert_array_equal(
        server.generate(prompt="<i> <i>", image2=EIGHT[0], image4=EIGHT[1]),
        server.generate(prompt="<i> <i>", image1=EIGHT[0], image2=EIGHT[1]),
    )

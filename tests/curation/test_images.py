"""Which images are taken, and what is kept of them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.curation.images import ReadImages, image_of, is_flat
from kosmosg.curation.records import Outcome, Record, Rejection
from kosmosg.curation.sources import ByteRange, Place
from kosmosg.prompts.images import central_square


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def record(path: Path, name: str = "jpg") -> Record:
    places: dict[str, Place] = {name: ByteRange(path)}
    return Record(key=path.name, places=places)


def read(path: Path, **options: Any) -> Outcome:
    (outcome,) = ReadImages(**options)([record(path)])
    return outcome


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Rejection)
    return outcome.reason


@pytest.mark.parametrize(
    ("size", "box"), [((120, 100), (10, 0, 110, 100)), ((101, 130), (0, 14, 101, 115))]
)
def test_the_central_square_is_kept_to_the_pixel(
    tmp_path: Path, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    image = noise(*size)
    image.save(tmp_path / "a.png")
    outcome = read(tmp_path / "a.png")
    assert isinstance(outcome, Record)
    assert np.array_equal(np.asarray(image_of(outcome)), np.asarray(image.crop(box)))


def test_large_squares_are_scaled_down(tmp_path: Path) -> None:
    noise(150, 300).save(tmp_path / "a.png")
    outcome = read(tmp_path / "a.png", max_side=120)
    assert isinstance(outcome, Record)
    assert image_of(outcome).size == (120, 120)


def test_a_photograph_that_was_held_sideways(tmp_path: Path) -> None:
    image = noise(140, 110)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    image.save(tmp_path / "a.png", exif=exif)
    outcome = read(tmp_path / "a.png")
    assert isinstance(outcome, Record)
    upright = central_square(image.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(np.asarray(image_of(outcome)), np.asarray(upright))


@pytest.mark.parametrize(("size", "wanted"), [((99, 400), "too-small"), ((400, 99), "too-small")])
def test_images_below_100_pixels(tmp_path: Path, size: tuple[int, int], wanted: str) -> None:
    noise(*size).save(tmp_path / "a.png")
    assert reason(read(tmp_path / "a.png")) == wanted
    assert isinstance(read(tmp_path / "a.png", min_side=99), Record)


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_images_of_one_colour(tmp_path: Path, format_: str) -> None:
    Image.new("RGB", (120, 120), (200, 30, 90)).save(tmp_path / "a", format=format_)
    assert reason(read(tmp_path / "a")) == "one-colour"


def test_what_varies_a_little_is_one_colour() -> None:
    values = np.full((50, 50, 3), 100, np.uint8)
    values[10, 10, 1] = 108
    assert is_flat(Image.fromarray(values))
    values[10, 10, 1] = 109
    assert not is_flat(Image.fromarray(values))


def test_the_frame_does_not_count(tmp_path: Path) -> None:
    """Only the square is looked at: what is cut away may be as colourful as it likes."""
    values = np.full((120, 200, 3), 255, np.uint8)
    values[:, :30] = 0
    Image.fromarray(values).save(tmp_path / "a.png")
    assert reason(read(tmp_path / "a.png")) == "one-colour"


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    buffer = io.BytesIO()
    noise(120, 120).save(buffer, format="JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:3000])
    for name in ("text.jpg", "empty.jpg", "cut.jpg"):
        outcome = read(tmp_path / name)
        assert reason(outcome) == "image", name
        assert isinstance(outcome, Rejection)
        assert outcome.failed
    assert reason(read(tmp_path / "none.jpg")) == "unreadable"
    (outcome,) = ReadImages()([record(tmp_path / "text.jpg", "txt")])
    assert reason(outcome) == "missing-part"
    (outcome,) = ReadImages()([record(tmp_path / "text.jpg", "jxl")])
    assert reason(outcome) == "image-format"


def test_each_outcome_is_that_of_its_record(tmp_path: Path) -> None:
    """Equal keys are no trouble."""
    records = []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        if number % 3:
            noise(100 + number, 100, seed=number).save(path)
        records.append(Record(key="same", places={"jpg": ByteRange(path)}))
    for number, outcome in enumerate(ReadImages()(records)):
        if number % 3:
            assert isinstance(outcome, Record)
            square = central_square(noise(100 + number, 100, seed=number))
            assert np.array_equal(np.asarray(image_of(outcome)), np.asarray(square))
        else:
            assert reason(outcome) == "unreadable"


@pytest.mark.parametrize(
    ("noted", "source"),
    [
        ('{"url": "https://host/a.png"}', "https://host/a.png"),
        ('{"url": null}', "a.png"),
        ("[]", "a.png"),
        ("{", "a.png"),
        (None, "a.png"),
    ],
)
def test_where_a_image_is_from(tmp_path: Path, noted: str | None, source: str) -> None:
    noise(120, 120).save(tmp_path / "a.png")
    places: dict[str, Place] = {"png": ByteRange(tmp_path / "a.png")}
    if noted is not None:
        (tmp_path / "a.json").write_text(noted)
        places["json"] = ByteRange(tmp_path / "a.json")
    (outcome,) = ReadImages()([Record(key="a.png", places=places)])
    assert isinstance(outcome, Record)
    assert outcome.source == source

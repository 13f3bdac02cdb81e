"""Files of images, and what they say of how they were made."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmosg.errors import ImageError
from kosmosg.serving.metadata import read_recipe, save_image

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
@pytest.mark.parametrize("prompt", ["a dog", "naïve 猫 🎉", "x" * 40_000, "\ud800", 'a "b" \\ \n'])
def test_metadata(tmp_path: Path, suffix: str, prompt: str) -> None:
    path = tmp_path / f"out.{suffix}"
    save_image(IMAGE, path, quality=80, recipe={"prompt": prompt, "seed": 2**32 - 1})
    found = read_recipe(path)
    assert found["seed"] == 2**32 - 1
    assert found["prompt"] == prompt[:4000].replace("\ud800", " ")
    with Image.open(path) as image:
        assert image.size == IMAGE.size


@pytest.mark.parametrize("character", ["\x01", "🎉", "\n", '"', "\u2028", "猫"])
def test_metadata_never_grows_too_long(tmp_path: Path, character: str) -> None:
    """A JPEG's EXIF block has 64 KB; an image that was generated must not be lost to it."""
    recipe = {"prompt": character * 40_000, "negative_prompt": character * 40_000, "seed": 1}
    path = save_image(IMAGE, tmp_path / "out.jpg", quality=80, recipe=recipe)
    assert read_recipe(path)["seed"] == 1


def test_quality(tmp_path: Path) -> None:
    for suffix in ("webp", "jpg", "png"):
        sizes = []
        for quality in (0, 50, 100):
            path = save_image(IMAGE, tmp_path / f"o.{suffix}", quality=quality, recipe={})
            sizes.append(path.stat().st_size)
        assert sizes == sorted(sizes)
        assert (len(set(sizes)) == 1) == (suffix == "png"), "png ignores the quality"


def test_an_image_without_recipe(tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "plain.png")
    with pytest.raises(ImageError, match="does not say how"):
        read_recipe(tmp_path / "plain.png")

"""Paint on an initial image, and the mask that it is."""

from pathlib import Path

import numpy as np
from PIL import Image

from kosmosg.demo import mask


def test_a_mask_becomes_paint_and_the_paint_the_same_mask(tmp_path: Path) -> None:
    white = np.zeros((24, 32), np.uint8)
    white[4:12, 8:20] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    Image.new("RGB", (32, 24), "navy").save(tmp_path / "image.png")
    shown = mask.join(tmp_path / "image.png", tmp_path / "mask.png")
    (layer,) = shown["layers"]
    assert layer.getpixel((8, 4)) == (225, 29, 72, 255) and layer.getpixel((7, 4))[3] == 0
    files = {"background": str(tmp_path / "image.png"), "layers": [str(tmp_path / "layer.png")]}
    layer.save(files["layers"][0])
    found = mask.split(files, tmp_path)
    assert (np.asarray(Image.open(found["init_mask"])) == white).all()

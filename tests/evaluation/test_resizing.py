"""Pictures at other sizes."""

import numpy as np
import pytest
import torch
from PIL import Image

from kosmosg.evaluation.resizing import central_square, like_tensorflow, smooth


def test_like_tensorflow_by_hand() -> None:
    """Points 0, 1/2, 1 and 3/2 of two pixels, of which the last has no right neighbour."""
    pixels = torch.tensor([[[[0.0, 8.0], [16.0, 32.0]]]])
    rows = [[0, 4, 8, 8], [8, 14, 20, 20], [16, 24, 32, 32], [16, 24, 32, 32]]
    assert like_tensorflow(pixels, 4)[0, 0].tolist() == rows
    assert like_tensorflow(pixels, 1)[0, 0].tolist() == [[0]]


def test_another_shape_becomes_a_square() -> None:
    pixels = torch.arange(12.0).reshape(1, 1, 3, 4)
    found = like_tensorflow(pixels, 6)
    assert found.shape == (1, 1, 6, 6)
    assert found[0, 0, :, 0].tolist() == [0, 2, 4, 6, 8, 8]


def test_only_the_smooth_one_sees_all_pixels() -> None:
    """Stripes of one pixel are grey from afar; between neighbours they come out as wide waves."""
    stripes = np.zeros((128, 128, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    found = smooth(Image.fromarray(stripes), 33)
    assert found.shape == (3, 33, 33)
    # At the edges the filter is cut off.
    assert np.abs(found[:, :, 2:-2] - 127.5).max() < 8
    old = like_tensorflow(torch.from_numpy(stripes.transpose(2, 0, 1)).float()[None], 33)
    assert old.min() < 10
    assert old.max() > 245


def test_smooth_keeps_fractions_and_bounds() -> None:
    edge = np.zeros((8, 8, 3), dtype=np.uint8)
    edge[:, 4:] = 255
    found = smooth(Image.fromarray(edge), 5)
    assert (found.min(), found.max()) == (0, 255)
    assert (found != found.round()).any()
    plain = smooth(Image.new("RGB", (50, 30), (10, 20, 30)), 7)
    for channel, value in zip(plain, (10, 20, 30), strict=True):
        assert channel == pytest.approx(value, abs=1e-4)


def test_the_central_square() -> None:
    image = Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5))
    assert np.asarray(central_square(image)).tolist() == [[1, 2, 3], [6, 7, 8], [11, 12, 13]]
    tall = central_square(image.transpose(Image.Transpose.TRANSPOSE))
    assert np.asarray(tall).T.tolist() == [[1, 2, 3], [6, 7, 8], [11, 12, 13]]

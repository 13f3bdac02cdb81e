"""``make test WEIGHTS=directory``: whether weights that somebody has draw at all."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmosg.serving.service import Service

WEIGHTS = os.environ.get("KOSMOSG_TEST_WEIGHTS")
CAT = Path(__file__).resolve().parent.parent / "samples" / "cat.jpg"

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(not WEIGHTS, reason="no weights were named (make test WEIGHTS=directory)"),
]


def test_an_image_of_the_cat() -> None:
    service = Service.open(WEIGHTS)
    pipeline = service.pipeline
    with Image.open(CAT) as cat:
        images = [cat.convert("RGB")]
    drawn = [
        pipeline("<i> on the beach", images, num_inference_steps=4, seed=seed).images[0]
        for seed in (1, 1, 2)
    ]
    first, again, other = (np.asarray(image, dtype=int) for image in drawn)
    assert drawn[0].size == (pipeline.default_size, pipeline.default_size)
    assert first.std() > 1, "an image of one colour"
    assert np.abs(first - again).max() == 0
    assert np.abs(first - other).max() > 8

"""What the tests of the parts share with those of the stages."""

from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from miniature.pretraining.perceptual import PerceptualDistance
from tests.training.conftest import fresh_accelerate, quiet, run, start, trained, world
from tests.training.world import SIZES

__all__ = ["distance", "fresh_accelerate", "quiet", "run", "start", "trained", "world"]


@pytest.fixture
def distance() -> PerceptualDistance:
    torch.manual_seed(0)
    sizes: Any = SIZES["clip"]["vision_config"]
    return PerceptualDistance(CLIPVisionModel(CLIPVisionConfig(**sizes)))

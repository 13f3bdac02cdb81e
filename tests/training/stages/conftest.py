"""What the tests of the stages share."""

from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from kosmosg.training.stages.perceptual import PerceptualDistance
from tests.training.world import SIZES


@pytest.fixture
def distance() -> PerceptualDistance:
    torch.manual_seed(0)
    sizes: Any = SIZES["clip"]["vision_config"]
    return PerceptualDistance(CLIPVisionModel(CLIPVisionConfig(**sizes)))

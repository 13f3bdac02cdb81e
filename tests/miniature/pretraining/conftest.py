"""What the tests of the parts share with those of the stages."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from miniature.pretraining.perceptual import PerceptualDistance
from miniature.world import World
from tests.training.conftest import fresh_accelerate, quiet, run, start, trained, world
from tests.training.world import SIZES

__all__ = ["distance", "fresh_accelerate", "quiet", "run", "start", "trained", "world"]


@pytest.fixture(scope="session")
def art_world(art: Path) -> World:
    """The miniature's; ``world`` is that of the stages' tests, a folder of trained parts."""
    return World.open(art)


@pytest.fixture
def distance() -> PerceptualDistance:
    torch.manual_seed(0)
    sizes: Any = SIZES["clip"]["vision_config"]
    return PerceptualDistance(CLIPVisionModel(CLIPVisionConfig(**sizes)))

"""One small random pipeline for all tests of techniques."""

from pathlib import Path

import pytest

from kosmosg import KosmosGPipeline
from tests import tiny


@pytest.fixture(scope="package")
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the VAE's real scale, which ControlNets are made for, and images of 64 pixels."""
    return tiny.write_weights(tmp_path_factory.mktemp("techniques") / "weights", scale=8)


@pytest.fixture(scope="package")
def pipe(own_weights: Path) -> KosmosGPipeline:
    return KosmosGPipeline.from_pretrained(own_weights)

"""One small random pipeline for all tests of techniques."""

from pathlib import Path

import pytest

from kosmosg import KosmosGPipeline


@pytest.fixture(scope="package")
def pipe(tiny_weights: Path) -> KosmosGPipeline:
    return KosmosGPipeline.from_pretrained(tiny_weights)

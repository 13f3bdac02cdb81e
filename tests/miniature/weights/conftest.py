"""The embedded model, opened once."""

from pathlib import Path

import pytest

from kosmosg import KosmosGPipeline
from miniature.evaluation.probe import Probe
from tests.conftest import ROOT


@pytest.fixture(scope="package")
def embedded() -> Path:
    return ROOT / "weights" / "miniature"


@pytest.fixture(scope="package")
def pipeline(embedded: Path) -> KosmosGPipeline:
    return KosmosGPipeline.from_pretrained(embedded, device="cpu")


@pytest.fixture(scope="package")
def probe(embedded: Path) -> Probe:
    return Probe.from_pretrained(embedded / "probe")

"""The embedded model, opened once."""

from pathlib import Path

import pytest

from kosmosg import KosmosGPipeline
from kosmosg.errors import DataError
from miniature.evaluation.probe import Probe
from miniature.world import World, fetch_art
from tests.conftest import ROOT


@pytest.fixture(scope="package")
def embedded() -> Path:
    return ROOT / "weights" / "miniature"


@pytest.fixture(scope="package")
def public() -> World:
    """The world that the embedded model was trained in."""
    try:
        return World.open(fetch_art(ROOT / "outputs" / "art"))
    except DataError as error:
        pytest.skip(f"the public art is not here: {error}")


@pytest.fixture(scope="package")
def pipeline(embedded: Path) -> KosmosGPipeline:
    return KosmosGPipeline.from_pretrained(embedded, device="cpu")


@pytest.fixture(scope="package")
def probe(embedded: Path) -> Probe:
    return Probe.from_pretrained(embedded / "probe")

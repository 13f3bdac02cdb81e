"""One running server for most tests; starting it takes several seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.serving.client import Server


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random weights with the VAE's real scale, which draws 64 pixels fastest."""
    return tiny.write_weights(tmp_path_factory.mktemp("server") / "weights", scale=8)


@pytest.fixture(scope="session")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shared server. Tests leave it READY."""
    with Server(weights, tmp_path_factory.mktemp("shared")) as running:
        yield running

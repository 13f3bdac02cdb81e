"""A small world for tests."""

from pathlib import Path

import pytest

from miniature.world import World
from tests.miniature.art import write_art


@pytest.fixture(scope="session")
def art(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_art(tmp_path_factory.mktemp("art") / "art")


@pytest.fixture(scope="session")
def world(art: Path) -> World:
    return World.open(art)

"""What the tests of evaluation share."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate import PartialState

from kosmosg.utils.processes import find_processes
from tests.evaluation.fabricated import Fabricated, fabricate
from tests.training.conftest import forget_accelerate


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps processes for as long as the interpreter lives."""
    yield
    forget_accelerate()


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is not reached, and its client does not try for most of a minute."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def alone() -> PartialState:
    """The only process of a run."""
    return find_processes(cpu=True)


@pytest.fixture(scope="session")
def small_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of images of 64 pixels, whose attention takes a 256th of the time."""
    folder = tmp_path_factory.mktemp("small") / "weights"
    shutil.copytree(tiny_weights, folder)
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": 8}))
    return folder


@pytest.fixture(scope="session")
def fabricated(tmp_path_factory: pytest.TempPathFactory) -> Fabricated:
    """DreamBooth's set, COCO's, and networks to score them, all made up and small."""
    return fabricate(tmp_path_factory.mktemp("fabricated"))

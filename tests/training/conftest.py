"""What the tests of training share."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState, GradientState

from kosmosg.training.starting_weights import StartingWeights
from tests.training.toy import toy_options, train_toy
from tests.training.world import World, make_world, train


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps precision and processes for as long as the interpreter lives."""
    yield
    forget_accelerate()


def forget_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Data, CLIP, VAE and decoder of a small world, and weights to begin with."""
    made = make_world(tmp_path_factory.mktemp("world"))
    forget_accelerate()
    return made


@pytest.fixture(scope="session")
def start(world: World) -> StartingWeights:
    """The weights that stage 1 begins with."""
    return StartingWeights(directory=world.start)


@pytest.fixture(scope="session")
def quiet(world: World) -> Path:
    """The same weights without dropout: what they compute has no chance in it."""
    folder = world.folder / "quiet"
    shutil.copytree(world.start, folder)
    file = folder / "kosmosg" / "config.json"
    config: dict[str, Any] = json.loads(file.read_text())
    config["kosmos2"]["text_config"] |= {"dropout": 0.0, "attention_dropout": 0.0}
    file.write_text(json.dumps(config))
    return folder


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The runs of the three stages, one after the other."""

    lm: Path
    align: Path
    instruct: Path


@pytest.fixture(scope="session")
def trained(world: World) -> Trained:
    """KOSMOS-G through its three stages, on the command line."""
    runs = Trained(**{name: world.folder / name for name in ("lm", "align", "instruct")})
    mixed = [*world.data("text"), *world.data("captions", 2), *world.data("documents", 2)]
    lm = train("lm", runs.lm, "--weights", world.start, "--tokens", 64, *mixed)
    align = train("align", runs.align, "--weights", lm, *world.data("captions"))
    mixed = [*world.data("compositional", 2), *world.data("edits", 2), *world.data("captions")]
    options = ["--save-dtype", "float16", "--sample-every", 2, "--ema-decay", 0.9]
    train("instruct", runs.instruct, "--weights", align, *mixed, *options)
    forget_accelerate()
    return runs


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped behind the checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(folder), end=8 * 5)
    forget_accelerate()
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return shutil.copytree(stopped, tmp_path / "run")

"""The recipes of the three stages: published settings by default, and they run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from kosmosg.cli import main as cli
from kosmosg.data.options import NamedData
from tests.cli.options import read_options
from tests.conftest import ROOT
from tests.training.conftest import Trained
from tests.training.logs import assert_same_losses, read_log
from tests.training.sharding import launch_environment
from tests.training.world import World, train

PUBLISHED: dict[str, Any] = {
    "betas": (0.9, 0.98),
    "epsilon": 1e-6,
    "weight_decay": 0.01,
    "clip_norm": 2.0,
    "warmup_updates": 375,
    "precision": "fp16",
    "gradient_checkpointing": True,
    "save_every": 2000,
    "seed": 0,
    "learning_rate": 1e-3,
    "threads": 8,
}
FOLDERS = {
    "lm": ["text", "captions", "documents"],
    "align": ["captions"],
    "instruct": ["compositional", "edits", "captions"],
}
# Those of the authors' training scripts; of stage 1, the paper's section 3.2.
DEFAULTS: dict[str, dict[str, Any]] = {
    "lm": {
        "updates": 300_000,
        "batch_size": 576,
        "learning_rate": 2e-4,
        "tokens": 2048,
        "data": ["text:5", "captions:5", "documents:2"],
    },
    "align": {
        "updates": 300_000,
        "batch_size": 3584,
        "micro_batch_size": 56,
        "data": ["captions"],
        "skip_padding": False,
        "no_frozen_dropout": False,
        "stable_diffusion": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    },
    "instruct": {
        "updates": 200_000,
        "batch_size": 1024,
        "micro_batch_size": 16,
        "data": ["compositional:2", "edits:2", "captions:1"],
        "drop_text": 0.5,
        "keep_background": 0.5,
        "drop_caption": 0.5,
        "aligner_only": False,
    },
}
TINY = {
    "UPDATES": "2",
    "BATCH_SIZE": "4",
    "MICRO_BATCH_SIZE": "2",
    "WARMUP_UPDATES": "1",
    "PRECISION": "no",
    "TOKENS": "64",
    "PACKING_STREAMS": "2",
    "THREADS": "0",
}


def run_recipe(name: str, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "runs" / f"{name}.sh", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd="/",
    )


def words_of_recipe(name: str, tmp_path: Path, *arguments: Any, **environment: str) -> list[str]:
    """Run a recipe with a Python that only writes down what it is to do."""
    python, written = tmp_path / "python", tmp_path / "words.json"
    program = f"import json, sys; json.dump(sys.argv[1:], open({str(written)!r}, 'w'))"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    python.chmod(0o755)
    done = run_recipe(name, *arguments, PYTHON=str(python), **environment)
    assert done.returncode == 0, done.stderr
    words = json.loads(written.read_text())
    assert words[:2] == ["-m", "accelerate.commands.launch"]
    return words[2:]


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Tell what is for the launcher from what is for kosmosg."""
    place = words.index("-m")
    assert words[place + 1] == "kosmosg"
    return words[:place], words[place + 2 :]


@pytest.mark.parametrize("name", DEFAULTS)
def test_published_settings_are_the_defaults(name: str, tmp_path: Path) -> None:
    words = words_of_recipe(name, tmp_path, "weights", *FOLDERS[name], "output")
    launcher, command = split_words(words)
    assert launcher == ["--config_file", "runs/accelerate/ddp.yaml"]
    found = read_options(command)
    wanted = PUBLISHED | DEFAULTS[name]
    wanted["data"] = tuple(map(NamedData.parse, wanted["data"]))
    assert {key: found[key] for key in wanted} == wanted
    assert (found["weights"], found["output"]) == ("weights", Path("output"))


@pytest.mark.parametrize("name", DEFAULTS)
def test_too_few_arguments(name: str) -> None:
    done = run_recipe(name, "weights")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
    assert f"{name}.sh WEIGHTS" in done.stderr


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_recipe_trains(name: str, world: World, trained: Trained, tmp_path: Path) -> None:
    """All that it says to kosmosg, at tiny sizes from the environment."""
    weights = {"lm": world.start, "align": trained.lm / "weights"}
    folders = [world.folder / "data" / each for each in FOLDERS[name]]
    start = weights.get(name, trained.align / "weights")
    arguments = [start, *folders, tmp_path / "run", "--min-side", 64, "--threads", 0]
    environment = {**TINY, "LAUNCH": "--num_processes 4", "GRADIENT_CHECKPOINTING": "0"}
    words = words_of_recipe(name, tmp_path, *arguments, **environment)
    launcher, command = split_words(words)
    assert launcher[2:] == ["--num_processes", "4"]
    assert "--gradient-checkpointing" not in command
    assert cli.main([*command, "--log-every", "1"]) == 0
    assert len(read_log(tmp_path / "run")["loss"]) == 2


def test_two_processes_through_the_launcher(world: World, quiet: Path, tmp_path: Path) -> None:
    """The recipe, accelerate, its configuration file: nothing is stood in for."""
    folders = [world.folder / "data" / each for each in FOLDERS["lm"]]
    more = ["--min-side", 64, "--threads", 0, "--log-every", 1]
    environment = {**TINY, "PYTHON": sys.executable, "CONFIG": "runs/accelerate/cpu.yaml"}
    done = run_recipe("lm", quiet, *folders, tmp_path / "two", *more, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'two' / 'weights'}\n"
    assert "Warning" not in done.stderr
    state = (tmp_path / "two" / "checkpoints" / "step-00000002" / "state.json").read_text()
    assert json.loads(state)["settings"]["processes"] == 2

    arguments: list[Any] = ["--weights", quiet, "--tokens", 64, "--packing-streams", 2]
    for name, weight in zip(FOLDERS["lm"], (5, 5, 2), strict=True):
        arguments += world.data(name, weight)
    train("lm", tmp_path / "one", *arguments, "--learning-rate", 2e-4, updates=2)
    assert_same_losses(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("name", "kind", "processes"),
    [("ddp", "MULTI_GPU", 8), ("fsdp", "FSDP", 8), ("cpu", "MULTI_GPU", 2)],
)
def test_configurations_of_accelerate(name: str, kind: str, processes: int) -> None:
    config: Any = load_config_from_file(str(ROOT / "runs" / "accelerate" / f"{name}.yaml"))
    assert (config.distributed_type.value, config.num_processes) == (kind, processes)
    environment = launch_environment(f"{name}.yaml")
    assert ("ACCELERATE_USE_FSDP" in environment) == (name == "fsdp")
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"


def test_recipes_parse_as_a_whole() -> None:
    for recipe in (ROOT / "runs").glob("*.sh"):
        subprocess.run(["bash", "-n", recipe], check=True)
        if recipe.name == "launch.sh":  # which they source
            continue
        assert os.access(recipe, os.X_OK), recipe
        text = recipe.read_text()
        assert "set -euo pipefail" in text
        for word in ("command", "hardware", "duration", "expected"):
            assert f"#   {word}" in text, f"{recipe.name} does not say its {word}"

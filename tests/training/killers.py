"""Runs that are killed at a chosen moment, as a machine that loses its power."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from kosmosg.training import checkpoints, update
from kosmosg.training.options import LoopOptions
from kosmosg.utils import files
from tests.dying import dying
from tests.training.toy import ToyStage, train_in_process, train_toy
from tests.training.world import train_by_words

# What is called at a moment, and how often it is before the process is killed.
MOMENTS: dict[str, tuple[Any, str, int]] = {
    "update": (update.Updater, "_check_finite", 5),
    "first": (update.Updater, "_check_finite", 1),
    "between files": (checkpoints, "save_file", 5),
    "before the rename": (Path, "rename", 2),
    "removing an old one": (shutil, "rmtree", 3),
    "flushing the result": (files, "flush", 6 * 7 + 1),  # after six checkpoints
}


def train_and_die(options: LoopOptions, moment: str) -> None:
    """Train, and be killed at a moment."""
    with dying(*MOMENTS[moment]):
        train_in_process(options)


def train_by_words_and_die(words: list[str], moment: str) -> None:
    """Run a command, and be killed at a moment."""
    with dying(*MOMENTS[moment]):
        train_by_words(words)


def train_without_dropout(options: LoopOptions) -> None:
    """Train a toy that is the same on any number of processes."""
    train_toy(options, build=partial(ToyStage, dropout=0.0))

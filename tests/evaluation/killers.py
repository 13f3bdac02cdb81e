"""Evaluations that are killed at a chosen moment, as a machine that loses its power."""

import os
from pathlib import Path
from typing import Any

from kosmosg.cli import main as cli
from kosmosg.evaluation import features, image_folder
from kosmosg.utils import files
from tests.dying import dying
from tests.evaluation.stand_in import painting

# What is called at a moment, and how often it is before the process is killed. Each file is brought
# to the disk before it gets its name, and its name after that; the record's is the first.
MOMENTS: dict[str, tuple[Any, str, int]] = {
    "before the first image": (image_folder, "save_image", 1),
    "between images of a batch": (image_folder, "save_image", 10),
    "before an image gets its name": (files, "flush", 2 + 2 * 11 + 2),
    "writing the record": (Path, "replace", 1),
    "scoring": (features, "in_batches", 2),
    "between files of results": (files, "flush", 2 + 2 * 50 + 2 + 1),  # the table
}


def evaluate(words: list[str]) -> None:
    """Run a command in a process of its own, which ends with its exit code."""
    raise SystemExit(cli.main(words))


def paint_and_die(words: list[str], moment: str) -> None:
    """Run a command with what stands in a model's place, and be killed at a moment."""
    with painting(), dying(*MOMENTS[moment]):
        evaluate(words)


def evaluate_where_the_first_dies(words: list[str], moment: str) -> None:
    """Run a command, of whose processes the first is killed at a moment."""
    if os.environ["RANK"] == "0":
        with dying(*MOMENTS[moment]):
            evaluate(words)
    evaluate(words)

"""Evaluations that are killed at a chosen moment, as a machine that loses its power."""

import os
from pathlib import Path
from typing import Any

from kosmosg.cli import main as cli
from kosmosg.evaluation import features
from kosmosg.evaluation import image_folder as gallery
from tests.dying import dying

# What is called at a moment, and how often it is before the process is killed.
MOMENTS: dict[str, tuple[Any, str, int]] = {
    "before the first picture": (gallery, "save_image", 1),
    "between pictures of a batch": (gallery, "save_image", 10),
    "between renames of a batch": (Path, "replace", 12),
    "writing the record": (Path, "replace", 1),
    "scoring": (features, "in_batches", 2),
    "between files of results": (gallery, "_flush", 53),  # record, 50 pictures, results, table
}


def evaluate(words: list[str]) -> None:
    """Run a command in a process of its own, which ends with its exit code."""
    raise SystemExit(cli.main(words))


def evaluate_and_die(words: list[str], moment: str) -> None:
    """Run a command, and be killed at a moment."""
    with dying(*MOMENTS[moment]):
        evaluate(words)


def evaluate_where_the_first_dies(words: list[str], moment: str) -> None:
    """Run a command, of whose processes the first is killed at a moment."""
    if os.environ["RANK"] == "0":
        evaluate_and_die(words, moment)
    evaluate(words)

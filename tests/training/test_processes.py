"""Two processes and one: the same global batch gives the same losses, stage by stage."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from kosmosg.training.options import LoopOptions
from tests.training import killers
from tests.training.killers import train_by_words_and_die
from tests.training.logs import assert_same_losses, read_log
from tests.training.processes import run_together
from tests.training.toy import (
    toy_options,
    train_in_process,
    weights,
)
from tests.training.uneven import train_uneven, train_where_one_cannot_sample
from tests.training.world import World, train, train_by_words, words_of

STAGES: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    # Else documents are packed in as many streams as there are processes.
    "lm": (["--tokens", 48, "--packing-streams", 2], ("text:1", "captions:2", "documents:2")),
    # With padding counted, the loss depends on the cut into batches, as the authors' does.
    "align": (["--skip-padding"], ("captions:1",)),
    "instruct": (["--drop-text", 0.3], ("compositional:2", "edits:2", "captions:1")),
}


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_lose_what_one_does(
    world: World, quiet: Path, tmp_path: Path, stage: str
) -> None:
    """Through the command line, on several micro-batches."""
    options, sets = STAGES[stage]
    arguments: list[Any] = ["--weights", quiet, *options, "--micro-batch-size", 2]
    for name, weight in (each.split(":") for each in sets):
        arguments += world.data(name, float(weight))
    words = words_of(stage, tmp_path / "two", *arguments, batch_size=6)
    assert run_together(train_by_words, words) == [0, 0]
    train(stage, tmp_path / "one", *arguments, batch_size=6)
    assert_same_losses(tmp_path / "two", tmp_path / "one")


def test_two_processes_share_encoded_images(world: World, tmp_path: Path) -> None:
    """One encodes them, and the other waits."""
    arguments = ["--config", world.folder / "sizes.json", *world.data("images")]
    for part in ("clip", "vae"):
        arguments += [f"--{part}", world.folder / part / "weights"]
    assert run_together(train_by_words, words_of("decoder", tmp_path / "two", *arguments)) == [0, 0]
    assert_same_losses(tmp_path / "two", world.folder / "decoder")


def test_a_killed_stage_goes_on_as_if_undisturbed(world: World, tmp_path: Path) -> None:
    """With dropout, average and documents packed half; on two processes, and again on two."""
    arguments: list[Any] = ["--weights", world.start, "--tokens", 48, "--save-every", 1]
    arguments += [*world.data("documents"), *world.data("text"), "--ema-decay", 0.9]
    parts, whole = (words_of("lm", tmp_path / run, *arguments) for run in ("parts", "whole"))
    assert -9 in run_together(train_by_words_and_die, parts, "between files")
    for words in (parts, whole):
        assert run_together(train_by_words, words) == [0, 0]
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")
    files = [tmp_path / run / "weights/kosmosg/model.safetensors" for run in ("parts", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_process_without_images_does_not_hang_the_other(quiet: Path, tmp_path: Path) -> None:
    options = uneven_options(tmp_path)
    assert run_together(train_uneven, quiet, "lm", options(tmp_path / "two")) == [0, 0]
    train_uneven(quiet, "lm", options(tmp_path / "one"))
    assert_same_losses(tmp_path / "two", tmp_path / "one")


def test_on_shards_neither_does_one_that_cannot_sample(quiet: Path, tmp_path: Path) -> None:
    """Nor while samples are made, of prompts with images here and without there: twice."""
    options = uneven_options(tmp_path)
    two = options(tmp_path / "two", sample_every=1)
    assert run_together(train_where_one_cannot_sample, quiet, two) == [0, 0]
    train_uneven(quiet, "instruct", options(tmp_path / "one"))
    assert_same_losses(tmp_path / "two", tmp_path / "one")
    assert len([*(tmp_path / "two" / "samples").iterdir()]) == 2


def uneven_options(folder: Path) -> Callable[..., LoopOptions]:
    for name in ("two", "one"):
        (folder / name).mkdir()
    return partial(toy_options, updates=2, batch_size=4, micro_batch_size=None, learning_rate=1e-3)


# ------------------------------------------------------------------ a toy


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    changes: dict[str, Any] = {"micro_batch_size": 2}
    two = toy_options(tmp_path / "two", **changes)
    assert run_together(killers.train_without_dropout, two) == [0, 0]
    killers.train_without_dropout(toy_options(tmp_path / "one", **changes))
    found, wanted = read_log(tmp_path / "two"), read_log(tmp_path / "one")
    for name in ("loss", "double", "gradient"):
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in wanted[name]], rel=1e-5)
    for name, tensor in weights(tmp_path / "one").items():
        if name != "seen":
            torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, atol=1e-5, rtol=0)


def test_another_number_of_processes_is_refused(run: Path) -> None:
    assert 1 in run_together(train_in_process, toy_options(run))
    message = json.loads((run / "0-error.txt").read_text())
    assert "processes was 1 and is 2" in message

"""Two processes and one: the same global batch gives the same losses, stage by stage."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from kosmosg.errors import TrainingError
from tests.training import killers
from tests.training.killers import train_by_words_and_die
from tests.training.logs import assert_same_losses, read_log
from tests.training.processes import run_together
from tests.training.toy import (
    assert_same_run,
    toy_options,
    train_in_process,
    train_toy,
    weights,
)
from tests.training.uneven import train_uneven, train_where_one_cannot_draw
from tests.training.world import World, train, train_by_words, words_of

STAGES: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    # Without a fixed number of lanes, documents are packed in as many as there are processes.
    "lm": (["--tokens", 48, "--lanes", 2], ("text:1", "captions:2", "documents:2")),
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


def test_two_processes_share_encoded_pictures(world: World, tmp_path: Path) -> None:
    """One encodes them, and the other waits."""
    arguments = ["--config", world.folder / "sizes.json", *world.data("pictures")]
    for part in ("clip", "vae"):
        arguments += [f"--{part}", world.folder / part / "weights"]
    assert run_together(train_by_words, words_of("decoder", tmp_path / "two", *arguments)) == [0, 0]
    assert_same_losses(tmp_path / "two", world.folder / "decoder")


def test_a_killed_stage_goes_on_as_if_undisturbed(world: World, tmp_path: Path) -> None:
    """With dropout, average and documents packed half; on two processes, and again on two."""
    arguments: list[Any] = ["--weights", world.start, "--tokens", 48, "--save-every", 1]
    arguments += [*world.data("documents"), *world.data("text"), "--ema-decay", 0.9]
    parts, whole = (words_of("lm", tmp_path / run, *arguments) for run in ("parts", "whole"))
    for moment in ("first", "between files"):
        assert -9 in run_together(train_by_words_and_die, parts, moment)
    for words in (parts, whole):
        assert run_together(train_by_words, words) == [0, 0]
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")
    files = [tmp_path / run / "weights/kosmosg/model.safetensors" for run in ("parts", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("stage", "sharded"),
    [("lm", False), ("instruct", False), ("instruct", True)],
    ids=["lm", "instruct", "instruct-on-shards"],
)
def test_a_process_without_pictures_does_not_hang_the_other(
    quiet: Path, tmp_path: Path, stage: str, sharded: bool
) -> None:
    """Nor while sample images are drawn, of prompts with pictures here and without there."""
    options = partial(toy_options, steps=3, batch_size=4, micro_batch_size=None, learning_rate=1e-3)
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    two = options(tmp_path / "two", sample_every=2)
    assert run_together(train_uneven, quiet, stage, two, sharded) == [0, 0]
    train_uneven(quiet, stage, options(tmp_path / "one"))
    assert_same_losses(tmp_path / "two", tmp_path / "one")
    assert (tmp_path / "two" / "samples").exists() == (stage == "instruct")


def test_a_process_that_cannot_draw_does_not_hang_the_other(quiet: Path, tmp_path: Path) -> None:
    """Though both gather shards while they do."""
    (tmp_path / "run").mkdir()
    options = toy_options(
        tmp_path / "run", steps=2, batch_size=2, sample_every=1, learning_rate=1e-3
    )
    assert run_together(train_where_one_cannot_draw, quiet, options) == [0, 0]
    assert len([*(tmp_path / "run" / "samples").iterdir()]) == 2


# ------------------------------------------------------------------ a toy


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    changes: dict[str, Any] = {"micro_batch_size": 2}
    assert run_together(
        killers.train_without_dropout, toy_options(tmp_path / "two", **changes)
    ) == [
        0,
        0,
    ]
    killers.train_without_dropout(toy_options(tmp_path / "one", **changes))
    found, wanted = read_log(tmp_path / "two"), read_log(tmp_path / "one")
    for name in ("loss", "double", "gradient"):
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in wanted[name]], rel=1e-5)
    for name, tensor in weights(tmp_path / "one").items():
        if name != "seen":
            torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, atol=1e-5, rtol=0)


def test_two_killed_processes_go_on_as_if_undisturbed(tmp_path: Path) -> None:
    """With dropout, which differs between processes, and is the same again."""
    for name in ("parts", "whole"):
        (tmp_path / name).mkdir()
    parts, whole = toy_options(tmp_path / "parts"), toy_options(tmp_path / "whole")
    assert -9 in run_together(killers.train_and_die, parts, "update")
    assert -9 in run_together(killers.train_and_die, parts, "before the rename")
    assert run_together(train_in_process, parts) == [0, 0]
    assert run_together(train_in_process, whole) == [0, 0]
    assert_same_run(parts.output, whole.output)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    options = toy_options(tmp_path / "run")
    options.output.mkdir()
    assert -9 in run_together(killers.train_and_die, options, "update")
    with pytest.raises(TrainingError, match="processes was 2 and is 1"):
        train_toy(options)
    assert 1 in run_together(train_in_process, toy_options(tmp_path / "run", batch_size=9))
    message = json.loads((options.output / "0-error.txt").read_text())
    assert message.startswith("A batch of 9 cannot be shared out evenly among 2 processes")

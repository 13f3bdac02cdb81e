"""Two processes and one: the same global batch gives the same losses, stage by stage."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kosmosg.training.report import read_log
from tests.training.killers import train_by_words_and_die
from tests.training.processes import run_together
from tests.training.toy import toy_options
from tests.training.uneven import train_uneven, train_where_one_cannot_draw
from tests.training.world import World, train, train_by_words, words_of

STAGES: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    # Without a fixed number of lanes, documents are packed in as many as there are processes.
    "lm": (["--tokens", 48, "--lanes", 2], ("text:1", "captions:2", "documents:2")),
    # With padding counted, the loss depends on the cut into batches, as the authors' does.
    "align": (["--skip-padding"], ("captions:1",)),
    "instruct": (["--drop-text", 0.3], ("compositional:2", "edits:2", "captions:1")),
}


def assert_same_losses(found: Path, wanted: Path) -> None:
    logs = [read_log(run) for run in (found, wanted)]
    assert logs[0].keys() == logs[1].keys()
    for name in logs[1].keys() - {"gradient"}:
        values = [[value for _, value in log[name]] for log in logs]
        assert len(values[0]) == len(values[1]) > 1
        assert values[0] == pytest.approx(values[1], abs=1e-5, rel=1e-5), name


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

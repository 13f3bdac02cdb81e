"""Checkpoints on disks that are full, and folders that somebody has touched."""

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from kosmosg.errors import TrainingError
from kosmosg.training import checkpoints, disk
from kosmosg.training import logging as training_logging
from kosmosg.training.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    check_identity,
    read_checkpoint,
    read_stream,
    write_checkpoint,
    write_stream,
)
from tests.training.disks import no_space, no_space_in_rust
from tests.training.logs import read_log
from tests.training.toy import ToyStage, toy_options, train_toy

FILES = (
    *("state.json", "weights.safetensors", "optimizer.safetensors", "ema.safetensors"),
    "stream-0.json",
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for two checkpoints of ``LARGE`` and no third."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1100k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk, and not everywhere")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


LARGE = partial(ToyStage, hidden=3000)


def test_a_checkpoint_comes_back_as_it_went(tmp_path: Path) -> None:
    weights = torch.randn(4, 3)
    wanted = Checkpoint(
        step=7,
        identity={"betas": (0.9, 0.98), "ema_decay": None},
        scaler={"scale": 4.0, "growth_factor": 2.0, "_growth_tracker": 3},
        weights={"a.b": weights, "transposed": weights.T},
        optimizer={"a.b": {"exp_avg": weights + 1, "step": torch.tensor(7.0)}},
        ema={"a.b": weights - 1},
        report={"sums": {"loss": 0.1}, "counted": 3},
    )
    write_checkpoint(wanted, tmp_path)
    write_stream({"position": [3, 4]}, tmp_path, 1)
    found = read_checkpoint(tmp_path)
    assert (found.step, found.scaler, found.report) == (7, wanted.scaler, wanted.report)
    check_identity(found.identity, wanted.identity, tmp_path)
    assert torch.equal(found.weights["transposed"], weights.T)
    assert torch.equal(found.optimizer["a.b"]["exp_avg"], weights + 1)
    assert torch.equal(found.ema["a.b"], weights - 1)
    assert read_stream(tmp_path, 1) == {"position": [3, 4]}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    train_toy(toy_options(tmp_path / "run", save_every=3, keep=2))
    names = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000009", "step-00000012"]


def test_what_is_half_written_is_ignored_and_removed(run: Path) -> None:
    unfinished = run / "checkpoints" / "step-00000009.part"
    unfinished.mkdir()
    (unfinished / "state.json").write_text("{")
    assert CheckpointFolder(run / "checkpoints", 2).latest() == run / "checkpoints/step-00000004"
    train_toy(toy_options(run))
    assert not unfinished.exists()


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "garbled"])
def test_a_damaged_file_is_named(run: Path, name: str, damage: str) -> None:
    file = run / "checkpoints" / "step-00000004" / name
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        spoilt = {"cut": content[:-5], "empty": b"", "garbled": b"\xff" + content[1:]}
        file.write_bytes(spoilt[damage])
    with pytest.raises(TrainingError, match="step-00000004 cannot be read") as caught:
        train_toy(toy_options(run))
    assert "Remove it to go on from the one before it" in str(caught.value)


def test_the_one_before_a_damaged_one_still_loads(run: Path, tmp_path: Path) -> None:
    damaged = run / "checkpoints" / "step-00000004"
    for file in damaged.iterdir():
        file.unlink()
    damaged.rmdir()
    train_toy(toy_options(run))
    train_toy(toy_options(tmp_path / "whole"))
    assert read_log(run) == read_log(tmp_path / "whole")


@pytest.mark.parametrize("part", ["weights", "ema"])
def test_a_checkpoint_that_lacks_a_parameter(run: Path, part: str) -> None:
    folder = run / "checkpoints" / "step-00000004"
    state = read_checkpoint(folder)
    del getattr(state, part)["network.0.bias"]
    write_checkpoint(state, folder)
    with pytest.raises(TrainingError, match=r"does not fit: 'network\.0\.bias'"):
        train_toy(toy_options(run))


def test_a_stream_that_stood_elsewhere(run: Path) -> None:
    """Such as one of another kind, or as another version wrote it."""
    for written in ("[]", "{}"):
        (run / "checkpoints" / "step-00000004" / "stream-0.json").write_text(written)
        with pytest.raises(TrainingError, match=r"step-00000004 cannot be read .it does not fit"):
            train_toy(toy_options(run))


def test_a_parameter_of_another_shape(run: Path) -> None:
    folder = run / "checkpoints" / "step-00000004"
    state = read_checkpoint(folder)
    state.weights["network.0.bias"] = torch.zeros(5)
    write_checkpoint(state, folder)
    with pytest.raises(TrainingError, match="does not fit"):
        train_toy(toy_options(run))


def test_settings_that_differ_are_named_with_both_values() -> None:
    found = {"a": 1, "b": "x", "c": [1], "data": [["a", None, 1.0]]}
    wanted = {"a": 2, "c": (1,), "data": [["a", "captions", 1.0]], "new": 0}
    with pytest.raises(TrainingError) as caught:
        check_identity(found, wanted, Path("here"))
    assert str(caught.value).startswith(
        "here is of a run with other settings: a was 1 and is 2; b was 'x' and is None; data was "
        "[['a', None, 1.0]] and is [['a', 'captions', 1.0]]; new was None and is 0."
    )
    check_identity(found, {**found, "c": (1,)}, Path("here"))


# ------------------------------------------------------------------ full disks


def test_a_full_disk_leaves_the_last_good_checkpoint(small_disk: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 6 could not be written.*the disk is full") as e:
        train_toy(toy_options(small_disk / "run"), build=LARGE)
    folder = small_disk / "run" / "checkpoints"
    assert f"The last good one is {folder / 'step-00000004'}" in str(e.value)
    assert sorted(each.name for each in folder.iterdir()) == ["step-00000002", "step-00000004"]
    assert read_checkpoint(folder / "step-00000004").step == 4
    grow = ["mount", "-o", "remount,size=9m", str(small_disk)]
    subprocess.run(grow, check=True)
    train_toy(toy_options(small_disk / "run"), build=LARGE)  # with room again, it goes on


@pytest.mark.parametrize(
    ("owner", "name", "failure"),
    [
        (Path, "write_text", no_space),
        (checkpoints, "save_file", no_space_in_rust),
        (disk, "flush", no_space),  # some file systems notice only now
        (Path, "rename", no_space),
    ],
)
def test_a_disk_that_is_full_at_any_moment(
    run: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, failure: Callable
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failure)
        with pytest.raises(
            TrainingError, match=r"step 6 .* the disk is full. The last good one is"
        ):
            train_toy(toy_options(run))
    assert not list(run.rglob("*.part"))
    assert read_checkpoint(run / "checkpoints" / "step-00000004").step == 4
    train_toy(toy_options(run))


def test_no_checkpoint_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "save_file", no_space_in_rust)
    with pytest.raises(TrainingError, match="There is none yet"):
        train_toy(toy_options(tmp_path / "run"))


@pytest.mark.parametrize("method", ["__init__", "add_scalar", "flush"])
def test_a_log_that_cannot_be_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(training_logging.SummaryWriter, method, no_space)
    with pytest.raises(TrainingError, match="cannot be written: the disk is full"):
        train_toy(toy_options(run))


def test_an_error_is_not_hidden_by_the_end_of_the_log(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training_logging.SummaryWriter, "close", no_space)
    monkeypatch.setattr(checkpoints, "save_file", no_space_in_rust)
    with pytest.raises(TrainingError, match="The checkpoint of step 6"):
        train_toy(toy_options(run))
    assert "the log is not complete: the disk is full" in caplog.text

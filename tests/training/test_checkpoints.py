"""Checkpoints on disks that are full, and folders that somebody has touched."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch.utils.tensorboard import SummaryWriter

from kosmosg.errors import TrainingError
from kosmosg.training import checkpoints
from kosmosg.training.checkpoints import (
    find_latest,
    read_checkpoint,
    write_checkpoint,
    write_result,
)
from kosmosg.training.state import Checkpoint, TrainingState
from kosmosg.utils import files
from tests.training.disks import no_space, no_space_in_rust
from tests.training.logs import read_log
from tests.training.toy import ToyStage, toy_options, train_toy

FILES = (
    *("state.json", "weights.safetensors", "optimizer.safetensors", "ema.safetensors"),
    "streams.json",
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
        settings={"betas": [0.9, 0.98], "ema_decay": None},
        scaler={"scale": 4.0, "growth_factor": 2.0, "_growth_tracker": 3},
        weights={"a.b": weights, "transposed": weights.T},
        optimizer={"a.b": {"exp_avg": weights + 1, "step": torch.tensor(7.0)}},
        ema={"a.b": weights - 1},
        report={"sums": {"loss": 0.1}, "counted": 3},
        streams=[{"position": [1, 2]}, {"position": [3, 4]}],
    )
    folder = write_checkpoint(wanted, tmp_path, keep=1)
    assert find_latest(tmp_path) == folder == tmp_path / "checkpoints" / "step-00000007"
    found = read_checkpoint(folder)
    for name in ("step", "settings", "scaler", "report", "streams"):
        assert getattr(found, name) == getattr(wanted, name)
    assert torch.equal(found.weights["transposed"], weights.T)
    assert torch.equal(found.optimizer["a.b"]["exp_avg"], weights + 1)
    assert torch.equal(found.ema["a.b"], weights - 1)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    train_toy(toy_options(tmp_path / "run", save_every=3, keep=2))
    names = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000009", "step-00000012"]


def test_what_is_half_written_is_ignored_and_removed(run: Path) -> None:
    """Of a checkpoint, and of the result."""
    unfinished = [run / "checkpoints/step-00000009.0123abcd.part", run / "weights.0123abcd.part"]
    for folder in unfinished:
        folder.mkdir()
        (folder / "state.json").write_text("{")
    assert find_latest(run) == run / "checkpoints/step-00000004"
    train_toy(toy_options(run))
    assert not any(folder.exists() for folder in unfinished)


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "garbled"])
def test_a_damaged_file_is_named(run: Path, damage: str) -> None:
    for name in FILES:
        file = run / "checkpoints" / "step-00000004" / name
        content = file.read_bytes()
        file.unlink()
        if damage != "missing":
            spoilt = {"cut": content[:-5], "empty": b"", "garbled": b"\xff" + content[1:]}
            file.write_bytes(spoilt[damage])
        with pytest.raises(
            TrainingError, match=r"step-00000004 (cannot be read|does not fit)"
        ) as e:
            train_toy(toy_options(run))
        assert "Remove it to go on from the one before it" in str(e.value)
        file.write_bytes(content)


def test_the_one_before_a_damaged_one_still_loads(run: Path, tmp_path: Path) -> None:
    damaged = run / "checkpoints" / "step-00000004"
    for file in damaged.iterdir():
        file.unlink()
    damaged.rmdir()
    train_toy(toy_options(run))
    train_toy(toy_options(tmp_path / "whole"))
    assert read_log(run) == read_log(tmp_path / "whole")


def rewrite(run: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in the place of the one of step 4."""
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    write_checkpoint(checkpoint, run, keep=2)


@pytest.mark.parametrize("part", ["weights", "ema"])
def test_a_checkpoint_that_lacks_a_parameter(run: Path, part: str) -> None:
    state = read_checkpoint(run / "checkpoints" / "step-00000004")
    del getattr(state, part)["network.0.bias"]
    rewrite(run, state)
    with pytest.raises(TrainingError, match=r"does not fit .it lacks network\.0\.bias"):
        train_toy(toy_options(run))


def test_a_checkpoint_that_does_not_fit(run: Path) -> None:
    """A parameter of another shape; a stream of another kind, or as another version wrote it."""
    state = read_checkpoint(run / "checkpoints" / "step-00000004")
    bias = {"network.0.bias": torch.zeros(5)}
    for changes in (
        {"weights": state.weights | bias},
        {"streams": []},
        {"streams": [{}]},
        {"streams": [[]]},
    ):
        rewrite(run, replace(state, **changes))
        with pytest.raises(TrainingError, match="step-00000004 does not fit"):
            train_toy(toy_options(run))


def test_the_loss_scale_is_part_of_the_state() -> None:
    """What float16 on a GPU adds; the scaler itself works on a CPU, too."""
    states = []
    for scale in (4.0, 32.0):
        stage = ToyStage()
        optimizer = torch.optim.AdamW(stage.network.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=256)
        scaler.scale(stage.losses(stage.collate([1, 2]))["loss"]).backward()
        scaler.step(optimizer)
        scaler.update()
        states.append(
            TrainingState(
                stage=stage,
                model=stage,
                optimizer=optimizer,
                average=EMAModel(stage.network.parameters(), 0.9),
                scaler=scaler,
            )
        )
    run: dict[str, Any] = {"step": 1, "settings": {}, "report": {}, "streams": []}
    checkpoint = states[0].take(**run)
    assert (checkpoint.scaler["scale"], checkpoint.scaler["_growth_tracker"]) == (4.0, 1)
    states[1].put_back(checkpoint)
    assert states[1].scaler.get_scale() == 4.0
    for found, wanted in zip(*(state.stage.state_dict().values() for state in states), strict=True):
        assert found.shape == wanted.shape
    again = states[1].take(**run)
    for name, each in checkpoint.optimizer.items():
        for moment, tensor in each.items():
            assert torch.equal(again.optimizer[name][moment], tensor)
    for name, tensor in checkpoint.weights.items():
        assert torch.equal(again.weights[name], tensor)


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
        (files, "flush", no_space),  # some file systems notice only now
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


# ------------------------------------------------------------------ the result


def test_a_disk_that_is_full_at_the_end(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = r"result could not be written .* the disk is full"
    for owner, name, failure in (
        (ToyStage, "save", no_space_in_rust),
        (files, "flush", no_space),  # some file systems notice only now
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failure)
            with pytest.raises(TrainingError, match=message):
                train_toy(toy_options(run))
        assert not (run / "weights").exists()
        assert not list(run.rglob("*.part"))
    train_toy(toy_options(run))


def test_a_result_is_on_the_disk_before_it_counts(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves it whole or not at all."""
    flushed: list[tuple[str, bool]] = []

    def note(path: Path) -> None:
        name = path.relative_to(run).as_posix()
        flushed.append(
            (re.sub(r"[.][0-9a-f]{8}[.]part", ".part", name), (run / "weights").exists())
        )

    monkeypatch.setattr(files, "flush", note)
    train_toy(toy_options(run))
    assert ("weights.part/model.safetensors", False) in flushed
    assert flushed[-2:] == [("weights.part", False), (".", True)]


def test_weights_that_do_not_fill_the_stage_are_no_result(tmp_path: Path) -> None:
    """That is ours to see to: a missing name would leave a network as it began."""
    state = ToyStage().state_dict()
    for name in ("network.0.bias", "seen"):
        rest = {key: tensor for key, tensor in state.items() if key != name}
        if name == "seen":
            rest["unknown"] = state[name]
        with pytest.raises(AssertionError, match=r"network\.0\.bias|unknown"):
            write_result(ToyStage(), rest, tmp_path / "weights", torch.float32)


@pytest.mark.parametrize("method", ["__init__", "add_scalar", "flush"])
def test_a_log_that_cannot_be_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(SummaryWriter, method, no_space)
    with pytest.raises(TrainingError, match="cannot be written: the disk is full"):
        train_toy(toy_options(run))


def test_an_error_is_not_hidden_by_the_end_of_the_log(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(SummaryWriter, "close", no_space)
    monkeypatch.setattr(checkpoints, "save_file", no_space_in_rust)
    with pytest.raises(TrainingError, match="The checkpoint of step 6"):
        train_toy(toy_options(run))
    assert "the log is not complete: the disk is full" in caplog.text

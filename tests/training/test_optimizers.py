"""Optimizers that a run can be told to take."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kosmosg.errors import TrainingError
from kosmosg.training.checkpoints import find_latest, read_checkpoint
from kosmosg.training.estimate import StageEstimate
from kosmosg.training.footprint import Footprint
from kosmosg.training.meter import Cost
from kosmosg.training.optimizers import make_optimizer
from tests.training.toy import toy_options, train_toy, weights


def test_a_run_with_adafactor_goes_on_as_if_undisturbed(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimizer": "adafactor", "learning_rate": 0.1}
    train_toy(toy_options(tmp_path / "whole", **settings))
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(tmp_path / "stopped", **settings), end=8 * 7)
    train_toy(toy_options(tmp_path / "stopped", **settings))
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert whole.keys() == stopped.keys()
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    train_toy(toy_options(tmp_path / "adamw"))
    other = weights(tmp_path / "adamw")
    assert any(not torch.equal(whole[name], other[name]) for name in whole)


def test_the_optimizer_cannot_change_on_the_way(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(tmp_path / "run"), end=8 * 5)
    with pytest.raises(TrainingError, match="optimizer"):
        train_toy(toy_options(tmp_path / "run", optimizer="adafactor"))
    folder = find_latest(tmp_path / "run")
    assert folder is not None
    assert "optimizer" not in read_checkpoint(folder).settings  # as before there was a choice


@pytest.mark.parametrize(("name", "bytes_kept"), [("adamw", 8), ("adafactor", 0)])
def test_what_it_keeps_is_what_the_estimate_says(
    tmp_path: Path, name: Any, bytes_kept: int
) -> None:
    weight = torch.nn.Parameter(torch.ones(500, 400))
    optimizer = make_optimizer([weight], toy_options(tmp_path, optimizer=name))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = sum(each.nbytes for each in optimizer.state[weight].values())
    assert kept / weight.numel() == pytest.approx(bytes_kept, abs=0.1)
    cost = Cost(flops=0, peak=0)
    footprint = Footprint(parameters=10**9, trained=10**9, one=cost, two=cost)
    needed = StageEstimate(footprint=footprint, optimizer=name).memory(1)
    assert needed == StageEstimate(footprint=footprint).memory(1) - (8 - bytes_kept) * 1e9

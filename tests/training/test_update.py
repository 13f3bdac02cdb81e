"""One update: gradients of micro-batches, and a loss that is no number."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kosmosg.errors import TrainingError
from kosmosg.training.checkpoints import read_checkpoint
from kosmosg.training.update import seed_of_update, split
from tests.training.logs import read_log
from tests.training.toy import ToyBatch, ToyStage, toy_options, train_toy, weights


@pytest.mark.parametrize("size", [1, 3, 8])
def test_accumulation_changes_nothing(tmp_path: Path, size: int) -> None:
    build = partial(ToyStage, dropout=0.0)
    for name, micro_batch_size in (("whole", None), ("parts", size)):
        options = toy_options(tmp_path / name, micro_batch_size=micro_batch_size)
        train_toy(options, build=build)
    found, wanted = read_log(tmp_path / "parts"), read_log(tmp_path / "whole")
    for name in ("loss", "double", "gradient"):
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in wanted[name]], rel=1e-5)
    for name, tensor in weights(tmp_path / "whole").items():
        if name != "seen":  # it counts forward passes
            torch.testing.assert_close(weights(tmp_path / "parts")[name], tensor, atol=1e-6, rtol=0)


class Hopeless(ToyStage):
    """Its loss is no number from the sixth update on."""

    def losses(self, batch: ToyBatch) -> dict[str, Tensor]:
        factor = float("nan") if min(batch.seeds) >= 5 * 8 else 1.0
        return {name: factor * loss for name, loss in super().losses(batch).items()}


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss of update 6 is nan") as caught:
        train_toy(toy_options(tmp_path / "run"), build=Hopeless)
    assert "lower --learning-rate" in str(caught.value)
    assert f"checkpoint in {tmp_path / 'run' / 'checkpoints'}." in str(caught.value)
    assert [step for step, _ in read_log(tmp_path / "run")["loss"]] == [1, 2, 3, 4, 5]
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000004").step == 4


def test_after_an_update_a_stage_is_told_its_losses(tmp_path: Path) -> None:
    """Those of the whole batch, which the log has too."""
    told: list[dict[str, float]] = []

    class Listening(ToyStage):
        def after_update(self, losses: Mapping[str, float]) -> None:
            told.append(dict(losses))

    train_toy(toy_options(tmp_path / "run", updates=4), build=Listening)
    log = read_log(tmp_path / "run")
    for name, entries in log.items():
        assert [each[name] for each in told] == pytest.approx([value for _, value in entries])


def test_every_update_and_process_has_a_seed_of_its_own() -> None:
    seeds = [
        seed_of_update(seed, step, rank)
        for seed in (0, 1)
        for step in range(99)
        for rank in range(8)
    ]
    assert len({*seeds}) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of_update(5, 7, 1) == seed_of_update(5, 7, 1)


def test_split() -> None:
    assert split([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert split([1, 2], 5) == [[1, 2]]

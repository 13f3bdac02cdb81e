"""What every stage does by itself: a sheet of samples that cannot be made ends nothing."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.distributed.fsdp import FSDPModule

from kosmosg.errors import OutOfMemoryError, WeightsError
from tests.training.logs import read_log
from tests.training.toy import ToyStage, toy_options, train_toy

ERRORS = [
    WeightsError("The U-Net produced values that are not finite."),
    OutOfMemoryError("One image does not fit into the memory."),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
]


class Sampling(ToyStage):
    """Makes a sheet, or fails to: with one error after the other."""

    errors: Sequence[Exception] = ()

    def __init__(self) -> None:
        super().__init__()
        self.left: list[Exception] = [*self.errors]

    def sample_images(self) -> Image.Image:
        if self.left:
            raise self.left.pop(0)
        return Image.new("RGB", (8, 8))


class ShardedSampling(Sampling, FSDPModule):  # as fully_shard makes them
    def __new__(cls) -> "ShardedSampling":
        return nn.Module.__new__(cls)


def test_a_sheet_that_cannot_be_made_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train_toy(toy_options(tmp_path / "whole", sample_every=3), build=Sampling)
    assert len([*(tmp_path / "whole" / "samples").iterdir()]) == 4
    monkeypatch.setattr(Sampling, "errors", ERRORS)
    with caplog.at_level(logging.WARNING):
        train_toy(toy_options(tmp_path / "run", sample_every=3), build=Sampling)
    for error in ERRORS:
        assert caplog.text.count(f"no sheet of samples this time: {error}") == 1
    assert [file.name for file in (tmp_path / "run" / "samples").iterdir()] == ["step-00000012.png"]
    assert read_log(tmp_path / "run") == read_log(tmp_path / "whole")


def test_a_fault_of_ours_is_not_hidden() -> None:
    stage = Sampling()
    stage.left = [RuntimeError("mat1 and mat2 shapes cannot be multiplied")]
    with pytest.raises(RuntimeError, match="mat1"):
        stage(None)


def test_shards_that_are_half_gathered_end_the_run() -> None:
    """The other processes wait for this one; but what comes after all gathering is no matter."""
    stage = ShardedSampling()
    stage.left = [*ERRORS]
    assert stage(None) is None
    for error in ERRORS[1:]:
        with pytest.raises(type(error)):
            stage(None)

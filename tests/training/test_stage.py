"""What every stage does by itself: a sheet of samples that cannot be drawn ends nothing."""

import logging
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.distributed.fsdp import FSDPModule

from kosmosg.errors import OutOfMemoryError, WeightsError
from tests.training.logs import read_log
from tests.training.toy import ToyStage, toy_options, train_toy


class Drawing(ToyStage):
    """Draws, or fails to."""

    error: Exception | None = None

    def sample_images(self) -> Image.Image:
        if self.error is not None:
            raise self.error
        return Image.new("RGB", (8, 8))


class ShardedDrawing(Drawing, FSDPModule):  # as fully_shard makes them
    def __new__(cls) -> "ShardedDrawing":
        return nn.Module.__new__(cls)


ERRORS = [
    WeightsError("The U-Net produced values that are not finite."),
    OutOfMemoryError("One picture does not fit into the memory."),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_sheet_that_cannot_be_drawn_ends_no_run(
    tmp_path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train_toy(toy_options(tmp_path / "whole", sample_every=4), build=Drawing)
    assert len([*(tmp_path / "whole" / "samples").iterdir()]) == 3
    monkeypatch.setattr(Drawing, "error", error)
    with caplog.at_level(logging.WARNING):
        train_toy(toy_options(tmp_path / "run", sample_every=4), build=Drawing)
    assert caplog.text.count(f"no sheet of samples this time: {error}") == 3
    assert not (tmp_path / "run" / "samples").exists()
    assert read_log(tmp_path / "run") == read_log(tmp_path / "whole")


def test_a_fault_of_ours_is_not_hidden() -> None:
    stage = Drawing()
    stage.error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        stage(None)


def test_shards_that_are_half_gathered_end_the_run() -> None:
    """The other processes wait for this one; but what comes after all gathering is no matter."""
    stage = ShardedDrawing()
    stage.error = ERRORS[0]
    assert stage(None) is None
    for error in ERRORS[1:]:
        stage.error = error
        with pytest.raises(type(error)):
            stage(None)

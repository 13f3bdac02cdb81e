"""The result of a run: whole and on the disk, or not there."""

from pathlib import Path

import pytest
import torch

from kosmosg.errors import TrainingError
from kosmosg.training import disk, result
from kosmosg.training.result import write_result
from tests.training.disks import no_space, no_space_in_rust
from tests.training.toy import ToyStage, toy_options, train_toy


def test_a_disk_that_is_full_at_the_end(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = r"result could not be written .* the disk is full"
    for owner, name, failure in (
        (ToyStage, "save", no_space_in_rust),
        (result, "flush_all", no_space),  # some file systems notice only now
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
    flushed: list[tuple[Path, bool]] = []

    def note(path: Path) -> None:
        flushed.append((path.relative_to(run), (run / "weights").exists()))

    for module in (disk, result):
        monkeypatch.setattr(module, "flush", note)
    train_toy(toy_options(run))
    assert (Path("weights.part/model.safetensors"), False) in flushed
    assert flushed[-2:] == [(Path("weights.part"), False), (Path(), True)]


def test_weights_that_do_not_fill_the_stage_are_no_result(tmp_path: Path) -> None:
    """That is ours to see to: a missing name would leave a network as it began."""
    state = ToyStage().state_dict()
    for name in ("network.0.bias", "seen"):
        rest = {key: tensor for key, tensor in state.items() if key != name}
        if name == "seen":
            rest["unknown"] = state[name]
        with pytest.raises(AssertionError, match=r"network\.0\.bias|unknown"):
            write_result(ToyStage(), rest, tmp_path / "weights", torch.float32)

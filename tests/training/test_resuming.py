"""Going on with other settings: what may change, what is told, what is refused early."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from kosmosg.errors import TrainingError
from kosmosg.training.checkpoint import read_checkpoint
from kosmosg.training.report import Report, read_log
from kosmosg.training.resuming import check_settings
from tests.training.toy import ToyBatch, ToyStage, toy_options, train_toy


class Steep(ToyStage):
    """Its loss is no number from the sixth update on, which a high learning rate might do."""

    def losses(self, batch: ToyBatch) -> dict[str, Tensor]:
        factor = float("nan") if min(batch.seeds) >= 5 * 8 else 1.0
        return {name: factor * loss for name, loss in super().losses(batch).items()}


def test_the_way_out_of_a_loss_that_is_no_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the message advises is no dead end."""
    rates: dict[int, float] = {}

    def note(_: Report, step: int, losses: dict[str, float]) -> None:
        rates[step] = losses["rate"]

    monkeypatch.setattr(Report, "count", note)
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="same command again with a lower learning rate"):
        train_toy(toy_options(run), build=Steep)
    changes: dict[str, Any] = {"learning_rate": 0.01, "warmup_steps": 5, "clip_norm": 1.0}
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
        train_toy(toy_options(run, **changes), end=8 * 7)
    told = "learning_rate was 0.03 and is 0.01; warmup_steps was 3 and is 5; clip_norm was 2.0 and"
    assert f"from update 5 on, {told} is 1.0" in caplog.text
    caplog.clear()
    train_toy(toy_options(run, **changes))
    assert "from update" not in caplog.text  # it was told
    before, after = toy_options(run), toy_options(run, **changes)
    assert [*rates] == [*range(1, 13)]
    for step, rate in rates.items():
        assert rate == pytest.approx((before if step <= 4 else after).learning_rate_at(step - 1))
    assert read_checkpoint(run / "checkpoints" / "step-00000012").identity["clip_norm"] == 1.0


def test_other_settings_are_still_refused_beside_them(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(tmp_path / "run"), end=8 * 5)
    with pytest.raises(TrainingError) as caught:
        train_toy(toy_options(tmp_path / "run", learning_rate=0.01, epsilon=1e-5))
    assert "epsilon was 1e-06 and is 1e-05" in str(caught.value)
    assert "learning_rate" not in str(caught.value)


def test_gradient_checkpointing_may_begin_later(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(tmp_path / "run"), end=8 * 5)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    train_toy(toy_options(tmp_path / "run", gradient_checkpointing=True))
    train_toy(toy_options(tmp_path / "other"))
    assert read_log(tmp_path / "run") == read_log(tmp_path / "other")


def test_what_was_not_always_free(tmp_path: Path) -> None:
    """Older checkpoints have it among their settings."""
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(tmp_path / "run"), end=8 * 5)
    file = tmp_path / "run" / "checkpoints" / "step-00000004" / "state.json"
    state = json.loads(file.read_text())
    state["identity"]["gradient_checkpointing"] = False
    file.write_text(json.dumps(state))
    train_toy(toy_options(tmp_path / "run"))


def test_settings_that_are_checked_before_the_rest(tmp_path: Path) -> None:
    output = tmp_path / "run"
    check_settings(output, {"vae": "sha256:1"})  # there is nothing to go on with
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(output), end=8 * 5, settings={"vae": "sha256:1", "clip": None})
    check_settings(output, {"vae": "sha256:1", "younger": 2})
    with pytest.raises(TrainingError, match="vae was 'sha256:1' and is 'sha256:2'"):
        check_settings(output, {"vae": "sha256:2", "clip": None})
    (output / "checkpoints" / "step-00000004" / "state.json").write_text("[]")
    with pytest.raises(TrainingError, match="step-00000004 cannot be read"):
        check_settings(output, {"vae": "sha256:1"})

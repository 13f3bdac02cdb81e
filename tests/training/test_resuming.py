"""Going on with other settings: what may change, what is told, what is refused early."""

import logging
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kosmosg.errors import TrainingError
from kosmosg.training.checkpoints import (
    check_known_settings,
    find_latest,
    hold_run,
    read_checkpoint,
)
from kosmosg.training.logging import Report
from tests.training.logs import read_log
from tests.training.processes import run_to_the_end, started
from tests.training.toy import (
    ToyBatch,
    ToyStage,
    toy_options,
    train_in_process,
    train_toy,
    weights,
)


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
    with pytest.raises(TrainingError, match="same command again with a lower --learning-rate"):
        train_toy(toy_options(run), build=Steep)
    changes: dict[str, Any] = {"learning_rate": 0.01, "warmup_updates": 5, "clip_norm": 1.0}
    with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.WARNING):
        train_toy(toy_options(run, **changes), end=8 * 7)
    told = (
        "learning_rate was 0.03 and is 0.01; warmup_updates was 3 and is 5; clip_norm was 2.0 and"
    )
    assert f"from update 5 on, {told} is 1.0" in caplog.text
    caplog.clear()
    train_toy(toy_options(run, **changes))
    assert "from update" not in caplog.text  # it was told
    before, after = toy_options(run), toy_options(run, **changes)
    assert [*rates] == [*range(1, 13)]
    for step, rate in rates.items():
        assert rate == pytest.approx((before if step <= 4 else after).learning_rate_at(step - 1))
    assert read_checkpoint(run / "checkpoints" / "step-00000012").settings["clip_norm"] == 1.0


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


def test_what_may_change_between_a_run_and_its_resumption(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(tmp_path / "run"), end=8 * 5)
    changes: dict[str, Any] = {"save_every": 5, "keep": 1, "micro_batch_size": None, "log_every": 2}
    train_toy(toy_options(tmp_path / "run", save_dtype="float16", **changes))
    assert weights(tmp_path / "run")["network.0.weight"].dtype == torch.float16
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


def test_settings_of_the_stage_and_its_size_count_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(tmp_path / "run"), end=8 * 5, settings={"padding": True})
    for settings, message in (({"padding": False}, "True and is False"), ({}, "True and is not")):
        with pytest.raises(TrainingError, match=f"padding was {message}"):
            train_toy(toy_options(tmp_path / "run"), settings=settings)
    with pytest.raises(TrainingError, match="trained was 161 and is 81"):
        train_toy(
            toy_options(tmp_path / "run"),
            build=partial(ToyStage, hidden=8),
            settings={"padding": True},
        )
    with pytest.raises(TrainingError, match="younger was not given and is 1"):
        train_toy(toy_options(tmp_path / "run"), settings={"padding": True, "younger": 1})


def test_a_second_start_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    options = toy_options(tmp_path / "run", updates=100_000, save_every=1)
    options.output.mkdir()
    with started(train_in_process, options) as first:
        while not [*options.output.glob("checkpoints/step-????????")]:
            assert first.is_alive()
            time.sleep(0.01)
        with pytest.raises(TrainingError) as caught:
            train_toy(options)
        assert str(caught.value) == (
            f"{options.output}: another training (process {first.pid}) is at work here. Wait for "
            "it or end it, or name another output folder."
        )
    # It was killed, and the lock is gone with it.
    folder = find_latest(options.output)
    assert folder is not None
    step = read_checkpoint(folder).step
    with pytest.raises(KeyboardInterrupt):
        train_toy(options, end=8 * (step + 2))
    assert read_checkpoint(folder.with_name(f"step-{step + 2:08d}")).step == step + 2


def test_a_process_may_hold_what_it_holds(tmp_path: Path) -> None:
    with hold_run(tmp_path / "run"):
        train_toy(toy_options(tmp_path / "run", updates=1))
        assert run_to_the_end(train_in_process, toy_options(tmp_path / "run", updates=1)) == 1
    assert run_to_the_end(train_in_process, toy_options(tmp_path / "run", updates=1)) == 0


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            TrainingError, match=r"cannot be written: .* name another output folder"
        ):
            train_toy(toy_options(folder))


def test_settings_that_are_checked_before_the_rest(tmp_path: Path) -> None:
    output = tmp_path / "run"
    check_known_settings(output, {"vae": "sha256:1"})  # there is nothing to go on with
    with pytest.raises(KeyboardInterrupt):
        train_toy(toy_options(output), end=8 * 5, settings={"vae": "sha256:1", "clip": None})
    check_known_settings(output, {"vae": "sha256:1"})  # the loop compares the others
    with pytest.raises(TrainingError, match="vae was 'sha256:1' and is 'sha256:2'"):
        check_known_settings(output, {"vae": "sha256:2", "clip": None})
    with pytest.raises(TrainingError, match="more was not given and is 2"):
        check_known_settings(output, {"vae": "sha256:1", "more": 2})
    (output / "checkpoints" / "step-00000004" / "state.json").write_text("[]")
    with pytest.raises(TrainingError, match="step-00000004 cannot be read"):
        check_known_settings(output, {"vae": "sha256:1"})

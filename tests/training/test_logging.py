"""The log: what is in it, where it is read back from, and how it goes on."""

from pathlib import Path

import pytest
from accelerate import Accelerator
from PIL import Image

from kosmosg.training.accelerator import make_accelerator
from kosmosg.training.logging import Report
from tests.training.logs import read_log
from tests.training.toy import toy_options


def report_of(folder: Path, **changes: int) -> Report:
    options = toy_options(folder / "run", **changes)
    return Report(options, make_accelerator(options))


def test_means_over_an_interval(tmp_path: Path) -> None:
    report = report_of(tmp_path, log_every=3, updates=7)
    report.begin(0)
    for step in range(1, 8):
        report.count(step, {"loss": float(step), "other": 2.0})
    report.close()
    log = read_log(tmp_path / "run")
    assert log == {"loss": [(3, 2.0), (6, 5.0), (7, 7.0)], "other": [(3, 2.0), (6, 2.0), (7, 2.0)]}


def test_what_was_logged_behind_a_checkpoint_is_logged_anew(tmp_path: Path) -> None:
    """Killed after step 5, with a checkpoint of step 3."""
    report = report_of(tmp_path, log_every=2, updates=8)
    report.begin(0)
    for step in range(1, 6):
        report.count(step, {"loss": float(step)})
        if step == 3:
            state = report.state_dict()

    other = report_of(tmp_path, log_every=2, updates=8)
    other.load_state_dict(state)
    other.begin(3)
    for step in range(4, 9):
        other.count(step, {"loss": 10.0 * step})
    other.close()
    assert read_log(tmp_path / "run")["loss"] == [(2, 1.5), (4, 21.5), (6, 55.0), (8, 75.0)]
    report.close()


def test_a_long_log_is_read_as_a_whole(tmp_path: Path) -> None:
    """TensorBoard keeps a sample of ten thousand by default."""
    report = report_of(tmp_path, log_every=1, updates=10_500)
    report.begin(0)
    for step in range(1, 10_501):
        report.count(step, {"loss": float(step)})
    report.close()
    assert [step for step, _ in read_log(tmp_path / "run")["loss"]] == [*range(1, 10_501)]


def test_an_entry_is_there_for_others_at_once(tmp_path: Path) -> None:
    """So that a log is never shorter than a checkpoint says."""
    report = report_of(tmp_path, log_every=1)
    report.begin(0)
    for step in (1, 2, 3):
        report.count(step, {"loss": 1.0})
        assert len(read_log(tmp_path / "run")["loss"]) == step
    report.close()


def test_a_process_that_is_not_the_first_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "is_main_process", False)
    report = report_of(tmp_path)
    report.begin(0)
    report.count(1, {"loss": 1.0})
    report.show(1, Image.new("RGB", (2, 2)))
    report.close()
    assert report.state_dict() == {"sums": {}, "counted": 0, "loss": None}
    assert not (tmp_path / "run").exists()


def test_the_line_counts_samples(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = report_of(tmp_path, log_every=1, updates=4)
    report.begin(1)
    for step in (2, 3, 4):
        report.count(step, {"loss": 0.5})
    report.close()
    said = capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]
    assert said.startswith("run: 100%")
    assert "32/32" in said
    assert "samples/s, loss 0.5" in said

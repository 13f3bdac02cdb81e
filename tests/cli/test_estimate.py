"""``estimate``: what it prints is what the footprint and the card give."""

import re
from pathlib import Path

import pytest

from kosmosg.cli.main import main
from kosmosg.training.cards import CARDS, ONE_GPU, SHARE
from kosmosg.training.footprint import Pass, Sizes, find_footprint
from tests import tiny


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_weights(tmp_path_factory.mktemp("estimate") / "weights")


def estimate(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["estimate", *words]) == 0
    return capsys.readouterr().out


def test_hours_memory_and_price(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--weights", str(weights), "--stage", "align", "--card", "l4", "--price", "2"]
    told = estimate(capsys, *words, "--gpus", "2", "--micro-batch-size", "1")
    what = Pass(stage="align", tokens=40, precision="bf16")
    flops = find_footprint(Sizes.of(weights), what).flops(1)
    run = ONE_GPU["align"]
    hours = flops * run.updates * run.batch_size / (2 * CARDS["l4"].peak * SHARE) / 3600
    found = re.search(r"([\d.,]+) (hours|minutes), ([\d.,]+) of a card, price ([\d.]+)", told)
    assert found
    assert float(found[1]) == pytest.approx(hours * (1 if found[2] == "hours" else 60), abs=0.06)
    assert float(found[4]) == pytest.approx(4 * hours, abs=0.006)
    assert "at 30% of the peak, which is an assumption" in told


def test_all_stages_and_no_price(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = estimate(capsys, "--weights", str(weights), "--peak", "1", "--memory", "16")
    assert re.findall(r"^\w+", told, re.MULTILINE) == ["computed", "align", "instruct", "together"]
    assert "1 TFLOP/s and 16 GB" in told
    assert "price" not in told


def test_what_does_not_fit(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = estimate(capsys, "--weights", str(weights), "--stage", "instruct", "--memory", "0.5")
    assert "does not fit into 0.5 GB. It does not fit with one sample either" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--share", "2"], "--share is 2.0; it must be from 0.001 to 1"),
        (["--gpus", "0"], "--gpus is 0"),
        (["--stage", "align", "--tokens", "0"], "--tokens is 0; it must be from 1"),
        (["--stage", "align", "--tokens", "-5"], "--tokens is -5; it must be from 1"),
        (["--stage", "align", "--images", "-1"], "--images is -1; it must be from 0"),
        (["--tokens", "100"], "Give --stage, too"),
        (["--stage", "lm"], "Give --preset published"),
        (["--precision", "no"], "With --precision no, give --peak"),
        (["--weights", "nowhere"], "nowhere"),
    ],
)
def test_what_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", *words]) == 1
    assert message in capsys.readouterr().err

"""The whole program at small size: every row is there and says something."""

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.machine import cpu_name
from benchmarks.measuring import NotMeasured
from benchmarks.rows import ROWS
from benchmarks.session import measure_suite
from benchmarks.suites import MEASURE
from benchmarks.workbench import Workbench

COMMAND = ["--size", "small", "--rounds", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def report(folder: Path) -> tuple[str, dict]:
    """The table and the figures of one run of everything."""
    assert main([*COMMAND, "--steps", "3", "--folder", str(folder)]) == 0
    record = json.loads((folder / "small.json").read_text())
    return (folder / "small.md").read_text(), record


def test_every_row_is_measured_or_says_why_not(report: tuple[str, dict]) -> None:
    table, record = report
    assert [row["name"] for row in record["rows"]] == [row.name for row in ROWS]
    for row in record["rows"]:
        if reason := row.get("not_measured"):
            assert "no CUDA device" in reason or "no bfloat16" in reason or "page cache" in reason
            continue
        assert len(row["values"]) == len(row["baselines"]) == 1, row["name"]
        assert all(math.isfinite(value) and value > 0 for value in row["values"])
        assert math.isfinite(row["ratio"])
        assert row["ratio"] > 0
        assert row["target"] is None, "targets are those of the full size"
    for row in ROWS:
        assert f"| {row.title}" in table


def test_the_machine_is_named(report: tuple[str, dict]) -> None:
    table, record = report
    assert cpu_name() in table
    assert f"torch {torch.__version__}" in table
    assert record["machine"]["threads"] == torch.get_num_threads()
    assert record["load_average"].keys() == {"before", "after"}
    assert record["steps"] == 3


def test_what_needs_no_gpu_is_measured(report: tuple[str, dict]) -> None:
    found = {row["name"]: row for row in report[1]["rows"]}
    wanted = ["prediction-float32", "conditioning-empty-float32", "conditioning-batch"]
    wanted += ["attention", "channels-last", "peak-1", "opening-warm", "opening-memory"]
    wanted += ["setup", "setup-memory", "conversion", "conversion-memory"]
    for name in wanted:
        assert "not_measured" not in found[name], found[name]
    assert found["prediction-float32"]["psnr"] == "identical"
    for name in ("conditioning-empty-float32", "attention", "channels-last"):
        psnr = found[name]["psnr"]
        assert psnr == "identical" or psnr > 30, name
    # A process with torch in it takes more than these weights.
    assert found["opening-memory"]["values"][0] > 0.1


def test_nothing_but_weights_and_report_is_left(report: tuple[str, dict], folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"small", "small.md", "small.json"}


def test_one_suite_on_named_weights(tiny_weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.md"
    options = ["--weights", str(tiny_weights), "--output", str(output), "--folder", str(tmp_path)]
    assert main([*COMMAND, *options, "--only", "conversion"]) == 0
    record = json.loads(output.with_suffix(".json").read_text())
    assert record["weights"] == str(tiny_weights)
    reasons = {row["name"]: row["not_measured"] for row in record["rows"]}
    assert reasons.keys() == {"conversion", "conversion-memory"}
    assert all("weights were named" in reason for reason in reasons.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds is 0"),
        (["--steps", "2"], "--steps is 2; it must be from 3 to 50"),
        (["--steps", "51"], "--steps is 51"),
        (["--weights", "nowhere"], "nowhere is not a weights directory"),
        (["--device", "abacus"], "'abacus' cannot be used here"),
    ],
)
def test_mistakes(
    options: list[str],
    message: str,
    tmp_path: Path,
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["--size", "small", "--folder", str(tmp_path), "--weights", str(tiny_weights)]
    assert main([*common, *options]) == 1
    assert message in capsys.readouterr().err


# ------------------------------------------------------------------ rows that cannot be measured


@pytest.fixture
def bench(tiny_weights: Path, tmp_path: Path) -> Workbench:
    return Workbench(
        device=torch.device("cpu"),
        weights=tiny_weights,
        checkpoint=None,
        folder=tmp_path,
        rounds=1,
        steps=3,
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotMeasured("the moon is full"), "the moon is full"),
        (torch.OutOfMemoryError("CUDA out of memory"), "the memory is too small"),
    ],
)
def test_a_suite_that_breaks_off_keeps_its_rows(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def broken(bench: Workbench):
        raise error
        yield

    monkeypatch.setitem(MEASURE, "opening", broken)
    found = dict(measure_suite(bench, "opening"))
    assert set(found) == {row.name for row in ROWS if row.suite == "opening"}
    assert {measurement.reason for measurement in found.values()} == {reason}


def test_too_little_memory_for_a_precision(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other precision is measured, and the row that compares both is not."""
    monkeypatch.setattr("benchmarks.workbench.has_bfloat16", lambda device: True)
    # 710 000 parameters, twice their bytes: 2.8 MB in bfloat16, 5.6 MB in float32.
    monkeypatch.setattr("benchmarks.workbench.free_memory", lambda device: 4e6)
    found = dict(measure_suite(bench, "prediction"))
    assert "memory are needed" in found["prediction-float32"].reason
    assert "memory are needed" in found["bfloat16"].reason
    assert found["prediction-bfloat16"].ratio > 0
    assert found["float16"].reason == "no CUDA device"


def test_everything_can_be_asked_of_a_cpu(bench: Workbench) -> None:
    assert bench.lacks("batch-8") == bench.lacks("first-picture") == "no CUDA device"
    bench.everything = True
    assert bench.lacks("batch-8") == bench.lacks("first-picture") == ""

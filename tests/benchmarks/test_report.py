"""The table says what was measured, what is wanted, and what is missing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring import Measurement, not_measured
from benchmarks.report import make_table, write_report
from benchmarks.rows import ROW, ROWS, SUITES, Target
from benchmarks.suites import MEASURE

SETTINGS: dict[str, Any] = {
    "size": "full",
    "weights": "random",
    "rounds": 3,
    "machine": {
        "cpu": "Some Processor",
        "cores": 8,
        "threads": 4,
        "memory_gb": 64.0,
        "system": "Linux 6",
        "device": "cpu",
    },
    "versions": {"torch": "2.13.0"},
    "load_average": {"before": 0.1, "after": 4.2},
}
GOOD = Measurement(values=(1.0, 2.0, 4.0), baselines=(1.0, 2.0, 3.9), psnr=math.inf)


def line(name: str, measurement: Measurement, **settings: Any) -> str:
    table = make_table(SETTINGS | settings, {name: measurement})
    (found,) = (row for row in table.splitlines() if row.startswith(f"| {ROW[name].title}"))
    return found


def test_every_row_has_a_suite_and_a_name_of_its_own() -> None:
    assert len(ROW) == len(ROWS)
    assert set(SUITES) == set(MEASURE)


def test_machine_versions_and_load_stand_above_the_table() -> None:
    table = make_table(SETTINGS, {"prediction-float32": GOOD})
    assert "Some Processor, 4 threads on 8 cores, 64.0 GB of memory, Linux 6" in table
    assert "load average 0.1 before and 4.2 after" in table
    assert "torch 2.13.0." in table
    gpu = {"device": "cuda", "gpu": "A Card", "gpu_memory_gb": 80.0, "cuda": "12.6"}
    table = make_table(SETTINGS | {"machine": SETTINGS["machine"] | gpu}, {})
    assert "A Card, 80.0 GB, CUDA 12.6; Some Processor" in table


def test_a_row() -> None:
    assert line("prediction-float32", GOOD) == (
        "| a whole prediction of 50 steps, float32 | plain StableDiffusionPipeline, ready "
        "embeddings, float32 | 2 s | 2 s | **1** (1 – 1.03) | ≤ 1.03, met | identical |"
    )


@pytest.mark.parametrize(
    ("name", "measurement", "words"),
    [
        ("bfloat16", Measurement(values=(7.0,), baselines=(10.0,), psnr=12.34), "**missed**"),
        ("bfloat16", Measurement(values=(7.0,), baselines=(10.0,), psnr=12.34), "12 dB, **below"),
        ("bfloat16", Measurement(values=(0.5,), baselines=(1.0,), psnr=40.0), "500 ms"),
        ("bfloat16", Measurement(values=(0.5,), baselines=(1.0,), psnr=40.0), "≤ 0.6, met | 40 dB"),
        ("opening-cold", not_measured("the disk is away"), "not measured: the disk is away"),
        # An absolute target: the ratio of 1.4 does not matter.
        ("conversion-memory", Measurement(values=(7.9,), baselines=(5.7,)), "≤ 8 GB, met"),
        ("conversion-memory", Measurement(values=(8.1,), baselines=(5.7,)), "**missed**"),
    ],
)
def test_targets_fidelity_and_reasons(name: str, measurement: Measurement, words: str) -> None:
    assert words in line(name, measurement)


def test_targets_are_those_of_the_full_size_and_of_their_device() -> None:
    assert "≤ 1.03" not in line("prediction-float32", GOOD, size="small")
    assert "≥ 0.25" not in line("peak-1", GOOD), "that one is of a GPU"
    gpu = {"machine": SETTINGS["machine"] | {"device": "cuda", "gpu": "A Card"}}
    gpu["machine"] |= {"gpu_memory_gb": 80.0, "cuda": "12.6"}
    assert "≥ 0.25, met" in line("peak-1", GOOD, **gpu)
    assert Target(limit=0.25, at_least=True).met(ratio=0.3, value=0)
    assert not Target(limit=0.25, at_least=True).met(ratio=0.2, value=9)


def test_notes_stand_below_the_table_and_the_same_words_once() -> None:
    noted = {
        name: Measurement(values=(1.0,), baselines=(1.0,), note=note)
        for name, note in (("setup", "x"), ("opening-warm", "y"), ("opening-cold", "x"))
    }
    table = make_table(SETTINGS, noted)
    assert table.endswith("\n1. x\n2. y\n")
    assert table.count("[1]") == 2


def test_the_figures_are_strict_json(tmp_path: Path) -> None:
    rows = {"prediction-float32": GOOD, "compiled": not_measured("no CUDA device")}
    write_report(tmp_path / "new" / "table.md", SETTINGS, rows)
    found = json.loads((tmp_path / "new" / "table.json").read_text())
    assert found["machine"] == SETTINGS["machine"]
    first, second = found["rows"]
    assert first["name"] == "prediction-float32"
    assert first["psnr"] == "identical"
    assert first["values"] == [1.0, 2.0, 4.0]
    assert first["spread"] == [1.0, 4 / 3.9]
    assert (first["met"], first["target"]["limit"]) == (True, 1.03)
    assert second["not_measured"] == "no CUDA device"

"""Results, tables and sheets."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from kosmosg.errors import EvaluationError
from kosmosg.evaluation.metrics import Estimate
from kosmosg.evaluation.report import (
    EvaluationReport,
    make_table,
    published,
    to_json,
    write_results,
)
from kosmosg.utils import files
from kosmosg.utils.contact_sheet import Card
from tests.training.disks import no_space

NAN = math.nan


def estimate(value: float, low: float = NAN, high: float = NAN) -> Estimate:
    return Estimate(value=value, low=low, high=high, samples=3)


REPORT = EvaluationReport(
    evaluation="dreambench",
    model="weights/mine",
    settings={"steps": 2, "dtype": "float32"},
    conventions=["Done so."],
    scores={
        "DINO": estimate(0.5, 0.4, 0.6),
        "DINO/kind/modification": estimate(0.25, 0.2, 0.3),
        "DINO/subject/cat": estimate(0.125),
        "CLIP-I": estimate(0.75, 0.7, 0.8),
        "CLIP-I/kind/modification": estimate(0.7, 0.6, 0.8),
        "CLIP-I/subject/cat": estimate(0.6),
        "CLIP-T": estimate(0.3, 0.2, 0.4),
        "CLIP-T/kind/modification": estimate(0.2, 0.1, 0.3),
        "CLIP-T/subject/cat": estimate(0.1),
    },
    images=[{"file": "images/cat/00-0.png", "prompt": "<i>, red", "seed": 0, "DINO": 0.5}],
)
CARD = Card(
    group="cat",
    inputs=[Image.new("RGB", (640, 480), "red")],
    prompt="<i>, red",
    output=Image.new("RGB", (512, 512), "blue"),
    scores={"DINO": 0.5},
)


def test_the_paper_says() -> None:
    rows = {row["method"]: row for row in published("dreambench")["rows"]}
    assert rows["KOSMOS-G"] == {
        "method": "KOSMOS-G",
        "DINO": 0.694,
        "CLIP-I": 0.847,
        "CLIP-T": 0.287,
    }
    assert "CLIP-T" not in rows["real images (oracle)"]
    rows = {row["method"]: row["FID"] for row in published("coco")["rows"]}
    assert (rows["KOSMOS-G"], rows["Stable Diffusion v1.5"]) == (10.99, 9.34)


def test_the_table() -> None:
    table = make_table(REPORT)
    lines = table.splitlines()
    assert lines[:3] == [
        "| method | DINO | CLIP-I | CLIP-T |",
        "| --- | ---: | ---: | ---: |",
        "| real images (oracle) (paper, table 1) | 0.774 | 0.885 | – |",
    ]
    assert "| KOSMOS-G (paper, table 1) | 0.694 | 0.847 | 0.287 |" in lines
    assert (
        "| **weights/mine**, measured | 0.500 (0.400 – 0.600) | 0.750 (0.700 – 0.800) "
        "| 0.300 (0.200 – 0.400) |"
    ) in lines
    assert "| kind of prompt | DINO | CLIP-I | CLIP-T |" in lines
    assert "| cat | 0.125 | 0.600 | 0.100 |" in lines  # one prompt has no interval
    assert lines[-2:] == ["- Done so.", "- Settings: steps 2, dtype float32."]


def test_a_table_without_parts() -> None:
    report = EvaluationReport(
        evaluation="coco",
        model="a|b\nc",
        settings={},
        conventions=[],
        scores={"FID": estimate(12.345, 12.0, 13.0)},
        images=[],
    )
    table = make_table(report)
    assert "| **a\\|b c**, measured | 12.35 (12.00 – 13.00) |" in table
    assert "kind of prompt" not in table


def test_the_numbers() -> None:
    found = to_json(REPORT)
    assert found["scores"]["DINO"] == {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "samples": 3,
        "kind": {"modification": {"value": 0.25, "low": 0.2, "high": 0.3, "samples": 3}},
        "subject": {"cat": {"value": 0.125, "low": None, "high": None, "samples": 3}},
    }
    assert found["published"]["scores"] == ["DINO", "CLIP-I", "CLIP-T"]
    assert set(found["versions"]) == {"torch", "diffusers", "transformers", "pillow"}


def test_the_files(tmp_path: Path) -> None:
    table = write_results(REPORT, [CARD], tmp_path)
    assert (tmp_path / "table.md").read_text() == table
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == to_json(REPORT)
    first = (tmp_path / "sheet.html").read_bytes()
    write_results(REPORT, [CARD], tmp_path)
    assert (tmp_path / "sheet.html").read_bytes() == first
    assert {path.name for path in tmp_path.iterdir()} == {"table.md", "results.json", "sheet.html"}


def test_a_full_disk_leaves_the_results_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(REPORT, [CARD], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(files, "flush", no_space)
    with pytest.raises(EvaluationError, match=r"results\.json cannot be written: the disk is full"):
        write_results(replace(REPORT, model="weights/other"), [CARD], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

"""``runs/curate.sh``: what it says to kosmosg, and that it does it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kosmosg.curation.options import CompositionalOptions
from tests.cli.options import read_options
from tests.curation.folders import write_edits
from tests.curation.test_command import ROOT
from tests.curation.test_img2dataset import sample, write_tars

SOURCES = ("images", "edits", "downloads", "tokenizer", "output")


def run_script(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "runs" / "curate.sh", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd="/",
    )


def commands_of_script(tmp_path: Path, *arguments: Any, **environment: str) -> list[list[str]]:
    """Run the script with a Python that only writes down what it is to do."""
    python, written = tmp_path / "python", tmp_path / "words"
    program = f"import json, sys; print(json.dumps(sys.argv[1:]), file=open({str(written)!r}, 'a'))"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    python.chmod(0o755)
    done = run_script(*arguments, PYTHON=str(python), **environment)
    assert done.returncode == 0, done.stderr
    commands = [json.loads(line) for line in written.read_text().splitlines()]
    assert all(words[:2] == ["-m", "kosmosg"] for words in commands)
    return [words[2:] for words in commands]


def test_published_settings(tmp_path: Path) -> None:
    commands = commands_of_script(tmp_path, *SOURCES, "--workers", "caption=5x1", ADDRESS="auto")
    parsed = [read_options(words) for words in commands]
    found = [(str(each["source"]), str(each["output"])) for each in parsed]
    assert found == [
        ("downloads", "output/captions"),
        ("edits", "output/edits"),
        ("images", "output/compositional"),
    ]
    captions, edits, images = parsed
    assert images.items() >= vars(CompositionalOptions()).items()
    assert images["workers"] == ("caption=5x1",)
    assert (edits["side"], edits["image_format"]) == (512, "PNG")
    assert (captions["min_side"], captions["max_tokens"]) == (384, 128)
    assert captions["tokenizer"] == Path("tokenizer")
    assert [(each["per_shard"], each["address"]) for each in parsed] == [(256, "auto")] * 3


def test_sets_that_are_left_out(tmp_path: Path) -> None:
    commands = commands_of_script(tmp_path, "-", "edits", "-", "-", "output")
    assert [words[1] for words in commands] == ["instructpix2pix"]


def test_too_few_arguments() -> None:
    done = run_script("images")
    assert done.returncode == 2
    assert "curate.sh IMAGES EDITS" in done.stderr


@pytest.mark.slow
def test_it_makes_them(tiny_weights: Path, tmp_path: Path) -> None:
    downloads = write_tars(tmp_path / "in", sample(0))
    edits = write_edits(tmp_path / "edits", 1)
    done = run_script(
        *("-", edits, downloads, tiny_weights / "tokenizer", tmp_path / "out"),
        **{"PYTHON": sys.executable, "IN_PROCESS": "1", "MIN_SIDE": "40", "SIDE": "32"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "captions" / "000000.tar").is_file()
    assert (tmp_path / "out" / "edits" / "000000.tar").is_file()

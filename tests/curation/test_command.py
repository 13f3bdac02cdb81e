"""``python -m kosmosg curate``, from the words to the folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmosg.cli import curate
from kosmosg.cli import main as cli
from kosmosg.curation.options import CompositionalOptions, ModelBatches
from tests.cli.options import read_options
from tests.curation.folders import shards, write_edits
from tests.curation.test_img2dataset import sample, write_tars
from tests.curation.tiny_models import write_blip2, write_clipseg, write_qwen2

ROOT = Path(__file__).resolve().parents[2]


def run(*words: object) -> int:
    return cli.main(["curate", *map(str, words)])


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_edits(tmp_path_factory.mktemp("edits") / "set", 8)


def test_edits(edits: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ("instructpix2pix", edits, tmp_path / "out", "--side", 32, "--per-shard", 5)
    assert run(*words, "--in-process") == 0
    printed = capsys.readouterr().out
    assert "| read | 12 | 12 | – | – |" in printed
    assert "12 samples" in printed
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        *(".kosmosg.lock", "000000.tar", "000001.tar", "000002.tar", "curation.json", "records"),
        *("report.json", "report.md", "set-aside", "sheet.html"),
    ]
    # Once more there is nothing to do.
    before = shards(tmp_path / "out")
    assert run(*words, "--in-process") == 0
    assert shards(tmp_path / "out") == before
    # Other settings are another set.
    assert run("instructpix2pix", edits, tmp_path / "out", "--side", 64, "--in-process") == 1
    assert "was begun with other settings: per_shard was 5 and is 256; side was 32 and is 64" in (
        capsys.readouterr().err
    )


def test_captions(tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_tars(tmp_path / "in", sample(0), sample(1, txt=b""))
    tokenizer = ("--tokenizer", tiny_weights / "tokenizer", "--in-process")
    assert run("captions", folder, tmp_path / "out", *tokenizer, "--min-side", 44) == 0
    assert "| read | 2 | 1 | 1 no-caption | – |" in capsys.readouterr().out
    # A run that kept nothing does not end as if all were well.
    assert run("captions", folder, tmp_path / "larger", *tokenizer) == 1
    told = capsys.readouterr()
    assert "| read | 2 | 0 | 1 no-caption, 1 too-small | – |" in told.out
    assert "No sample was kept (1 × too-small, 1 × no-caption)." in told.err
    assert "Mend the source, or choose a smaller --min-side, and write to another" in told.err


@pytest.mark.slow
def test_compositional_samples_with_small_random_models(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """All of the real classes, from their folders; what they say is noise, and counted as such."""
    words = [
        *("--captioner", write_blip2(tmp_path / "blip2")),
        *("--language-model", write_qwen2(tmp_path / "qwen2")),
        *("--segmenter", write_clipseg(tmp_path / "clipseg")),
        *("--entity-tokens", 4, "--side", 64, "--per-shard", 3, "--in-process"),
    ]
    (tmp_path / "in").mkdir()
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 256, (120, 150, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "in" / f"{number}.jpg")
    code = run("openimages", tmp_path / "in", tmp_path / "out", *words)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert code == (0 if report["samples"] else 1)  # noise may hold no entity at all
    assert report["steps"]["read"]["kept"] == 4
    assert report["shards"] == {"finished": 2, "planned": 2}
    assert not any(step["failed"] for step in report["steps"].values())
    assert report["settings"]["captioner"].startswith("sha256:")
    assert "| caption | 4 |" in capsys.readouterr().out


def test_defaults_are_the_published_ones() -> None:
    """Those of the paper, as the library has them."""
    options = read_options(["curate", "openimages", "in", "out"])
    assert options.items() >= vars(CompositionalOptions()).items()
    assert options.items() >= vars(ModelBatches()).items()
    assert (options["threshold"], options["side"], options["per_shard"]) == (0.3, 512, 256)
    options = read_options(["curate", "captions", "in", "out", "--tokenizer", "t"])
    assert (options["min_side"], options["max_tokens"]) == (384, 128)
    options = read_options(["curate", "instructpix2pix", "in", "out"])
    assert (options["side"], options["image_format"]) == (512, "PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--side", "4"], "--side is 4"),
        (["--per-shard", "0"], "--per-shard is 0"),
        (["--workers", "reed=2", "--in-process"], "--workers reed=2: wanted STEP=N"),
        (["--workers", "read=no", "--in-process"], "--workers read=no"),
        (["--workers", "read=0", "--in-process"], "at least one worker"),
        (["--workers", "read=1x-1", "--in-process"], "--workers read=1x-1"),
        (["--workers", "read=1x1.5", "--in-process"], "GPUs up to 1 or whole"),
        (["--address", "nonsense"], "--address nonsense: wanted HOST:PORT"),
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: nobody answers there"),
    ],
)
def test_mistakes(
    edits: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert run("instructpix2pix", edits, tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err


def test_a_temporary_folder_with_a_long_path(
    edits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / ("plan" * 30)
    folder.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    assert run("instructpix2pix", edits, tmp_path / "out", "--cpus", 1) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: Ray does not start on this machine: the path of its temporary")
    assert f"TMPDIR={folder}). Set RAY_TMPDIR to a folder with a short path" in error


def test_a_missing_extra(
    edits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(curate, "NEEDED", {"ray_of_tomorrow": "ray[data]"})
    assert run("instructpix2pix", edits, tmp_path / "out") == 1
    assert "Curation needs ray[data]: pip install -e '.[curation]'." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_and_run_again(edits: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The whole command on Ray, killed as a machine that loses its power; then without Ray."""
    pytest.importorskip("ray")
    words = ["curate", "instructpix2pix", edits, tmp_path / "out", "--side", 32, "--per-shard", 1]
    command = [sys.executable, "-m", "kosmosg", *map(str, words), "--cpus", "2"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        summaries = tmp_path / "out" / "records"
        end = time.monotonic() + 240
        while not list(summaries.glob("*.json")) and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    times = {path: path.stat().st_mtime_ns for path in summaries.glob("*.json")}
    assert times
    assert run(*words[1:], "--in-process") == 0
    assert "12 samples" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert run(*words[1:3], tmp_path / "other", *words[4:], "--in-process") == 0
    assert shards(tmp_path / "out") == shards(tmp_path / "other")

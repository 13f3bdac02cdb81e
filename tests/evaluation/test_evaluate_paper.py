"""The paper's evaluations as a whole on made-up sets: alone, together, killed and resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.cli.main import main
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.serving.metadata import read_recipe
from tests.cli.options import read_options
from tests.conftest import ROOT
from tests.evaluation.commands import RESULTS, contents, words_of
from tests.evaluation.fabricated import Fabricated
from tests.evaluation.killers import (
    MOMENTS,
    evaluate,
    evaluate_where_the_first_dies,
    paint_and_die,
)
from tests.evaluation.stand_in import painting
from tests.training.processes import run_to_the_end, run_together


@pytest.fixture(scope="module")
def undisturbed(
    fabricated: Fabricated, small_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Both evaluations, in one process from beginning to end."""
    folders = {}
    for name in ("dreambench", "coco"):
        folders[name] = tmp_path_factory.mktemp("undisturbed") / name
        assert main(words_of(name, fabricated, folders[name], model=small_weights)) == 0
    return folders


def test_dreambench(
    undisturbed: dict[str, Path], fabricated: Fabricated, small_weights: Path
) -> None:
    folder = undisturbed["dreambench"]
    found = contents(folder)
    images = [name for name in found if name.startswith("images/")]
    assert sorted(set(found) - set(images)) == sorted([*RESULTS, "run.json"])
    assert len(images) == 2 * 25
    results = json.loads(found["results.json"])
    assert results["evaluation"] == "dreambench"
    assert set(results["scores"]) == {"DINO", "CLIP-I", "CLIP-T"}
    for score in results["scores"].values():
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert set(score["subject"]) == {"can", "cat"}
        kinds = {"re-contextualisation", "accessorisation", "modification"}
        assert set(score["kind"]) == kinds
    assert [row["file"] for row in results["images"]] == sorted(images)
    settings = results["settings"]
    assert (settings["steps"], settings["subjects"], settings["protocol"]) == (1, 2, "paper")
    assert settings["weights"].startswith("sha256:")
    told = "\n".join(results["conventions"])
    assert "every 5 images begin with the same 5 noises, of seeds 0 to 4" in told
    wanted = (
        "**Not as published:** subjects 2 instead of 30, steps 1 instead of 100, dino "
        f"{fabricated.dino} instead of facebook/dino-vits16, clip {fabricated.clip} instead of "
        "openai/clip-vit-base-patch32, per prompt 1 instead of 4."
    )
    assert wanted in told
    table = found["table.md"].decode()
    assert "| KOSMOS-G (paper, table 1) | 0.694 | 0.847 | 0.287 |" in table
    assert f"**{small_weights}**, measured" in table


def test_images_are_those_of_the_pipeline(
    undisturbed: dict[str, Path], fabricated: Fabricated, small_weights: Path
) -> None:
    file = undisturbed["dreambench"] / "images" / "cat" / "10-0.png"
    recipe = read_recipe(file)
    assert recipe["prompt"] == "<i> wearing a red hat"
    assert recipe["steps"] == 1
    pipeline = KosmosGPipeline.from_pretrained(small_weights, device="cpu")
    expected = pipeline(
        recipe["prompt"],
        [Image.open(fabricated.subjects / "cat" / "04.jpg")],
        num_inference_steps=1,
        guidance_scale=7.5,
        seed=recipe["seed"],
    ).images[0]
    difference = np.asarray(Image.open(file), dtype=int) - np.asarray(expected, dtype=int)
    assert np.abs(difference).max() <= 1


def test_coco(undisturbed: dict[str, Path]) -> None:
    results = json.loads((undisturbed["coco"] / "results.json").read_text())
    score = results["scores"]["Fréchet distance"]  # not Inception's, so it is not called FID
    assert score["low"] < score["value"] < score["high"]
    assert score["samples"] == 20
    assert len(results["images"]) == 20
    assert results["settings"]["scheduler"] == "DDIM"
    told = "\n".join(results["conventions"])
    assert "count 20 instead of 30000" in told
    assert "every 16 images begin with the same 16 noises, of seeds 0 to 15" in told
    table = (undisturbed["coco"] / "table.md").read_text()
    assert "| KOSMOS-G (paper, tables 1 and 2) | 10.99 | – |" in table


@pytest.fixture(scope="module")
def painted(
    fabricated: Fabricated, small_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """DreamBench with what stands in a model's place, from beginning to end."""
    folder = tmp_path_factory.mktemp("painted") / "dreambench"
    with painting():
        assert main(words_of("dreambench", fabricated, folder, model=small_weights)) == 0
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_as_if_it_had_not_been(
    moment: str, painted: Path, fabricated: Fabricated, small_weights: Path, tmp_path: Path
) -> None:
    words = words_of("dreambench", fabricated, tmp_path / "run", model=small_weights)
    assert run_to_the_end(paint_and_die, words, moment) == -9
    left = tmp_path / "run" / "images"
    kept = {path: path.stat().st_mtime_ns for path in left.rglob("*.png")}
    assert not (tmp_path / "run" / "table.md").exists()
    with painting():
        assert main(words) == 0
    assert contents(tmp_path / "run") == contents(painted)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # none was made again


def test_two_killed_processes_are_followed_by_one(
    undisturbed: dict[str, Path], fabricated: Fabricated, small_weights: Path, tmp_path: Path
) -> None:
    """And one that is killed by two."""
    words = words_of("coco", fabricated, tmp_path / "run", model=small_weights)
    ended = run_together(evaluate_where_the_first_dies, words, "between images of a batch")
    assert ended[0] == -9
    assert 0 < len([*(tmp_path / "run" / "images").rglob("*.png")]) < 20
    assert run_together(evaluate, words) == [0, 0]
    assert contents(tmp_path / "run") == contents(undisturbed["coco"])
    image = next((tmp_path / "run" / "images").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:-5])
    assert main(words) == 0
    assert contents(tmp_path / "run") == contents(undisturbed["coco"])


def test_a_finished_run_is_scored_again_without_its_model(
    undisturbed: dict[str, Path],
    fabricated: Fabricated,
    small_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(KosmosGPipeline, "from_pretrained", fail)
    before = contents(undisturbed["dreambench"])
    words = words_of("dreambench", fabricated, undisturbed["dreambench"], model=small_weights)
    assert main(words) == 0
    assert contents(undisturbed["dreambench"]) == before


def test_a_pipeline_of_diffusers_in_its_place(
    fabricated: Fabricated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It gets words alone, and is asked neither for images nor for safety."""
    words = words_of("dreambench", fabricated, tmp_path / "run", only=("vase",))
    assert main([*words, "--pipeline", str(fabricated.pipeline)]) == 0
    assert f"**{fabricated.pipeline}**, measured" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["images"][25 - 5]["prompt"] == "a red vase"
    assert "the model saw no photograph" in "\n".join(results["conventions"])
    pixels = [
        np.asarray(Image.open(tmp_path / "run" / row["file"])) for row in results["images"][:9]
    ]
    assert all(each.std() > 1 for each in pixels)  # none is black


# ------------------------------------------------------------------ recipes


def run_recipe(name: str, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "runs" / f"{name}.sh", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd="/",
    )


def test_the_recipe_of_dreambench_on_two_processes(
    undisturbed: dict[str, Path], fabricated: Fabricated, small_weights: Path, tmp_path: Path
) -> None:
    """Through accelerate's own launcher: nothing is stood in for."""
    more = words_of("dreambench", fabricated, tmp_path / "run", "--device", "cpu")[2:]
    done = run_recipe(
        *("dreambench", small_weights, fabricated.subjects, tmp_path / "run", *more),
        PYTHON=sys.executable,
        CONFIG="runs/accelerate/cpu.yaml",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (undisturbed["dreambench"] / "table.md").read_text()
    assert contents(tmp_path / "run") == contents(undisturbed["dreambench"])


@pytest.mark.parametrize("name", ["dreambench", "coco_fid"])
def test_too_few_arguments(name: str) -> None:
    done = run_recipe(name, "weights")
    assert done.returncode == 2
    assert f"{name}.sh WEIGHTS" in done.stderr


@pytest.mark.parametrize(
    ("name", "folders", "wanted"),
    [
        (
            "dreambench",
            ["weights", "subjects", "output"],
            {"steps": 100, "guidance_scale": 7.5, "scheduler": "DPMSolverMultistep"},
        ),
        (
            "coco_fid",
            ["weights", "captions", "photographs", "features", "output"],
            {"steps": 250, "guidance_scale": 3.0, "scheduler": "DDIM", "count": 30_000},
        ),
    ],
)
def test_published_settings_are_the_defaults(
    name: str, folders: list[str], wanted: dict[str, Any], tmp_path: Path
) -> None:
    """Read from a Python that only writes down what it is to do."""
    python, written = tmp_path / "python", tmp_path / "words.json"
    program = f"import json, sys; json.dump(sys.argv[1:], open({str(written)!r}, 'w'))"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    python.chmod(0o755)
    done = run_recipe(name, *folders, PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    words = json.loads(written.read_text())
    found = read_options(words[words.index("kosmosg") + 1 :])
    assert {key: found[key] for key in wanted} == wanted
    assert found["protocol"] == "paper"
    assert [str(found[folder]) for folder in folders] == folders
    assert run_recipe(name, *folders, PYTHON=str(python), BASELINE="1").returncode == 0
    words = json.loads(written.read_text())
    found = read_options(words[words.index("kosmosg") + 1 :])
    assert (found["pipeline"], found["weights"]) == ("weights", None)

"""The paper's evaluations as a whole, on made-up sets: alone, together, killed and resumed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.cli.main import build_parser, main
from kosmosg.evaluation import run as runs
from kosmosg.evaluation.image_folder import OWNER
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.serving.metadata import read_recipe
from tests.conftest import ROOT
from tests.evaluation.fabricated import SUBJECTS, Fabricated, photograph
from tests.evaluation.killers import (
    MOMENTS,
    evaluate,
    evaluate_and_die,
    evaluate_where_the_first_dies,
)
from tests.training.processes import run_to_the_end, run_together

RESULTS = ("results.json", "table.md", "sheet.html")
BATCH = 8


def words_of(
    evaluation: str, fabricated: Fabricated, output: Path, *more: Any, model: Path | None = None
) -> list[str]:
    """Write out ``kosmosg evaluate`` with all that a short run needs."""
    drawing = ["--steps", 1, "--batch", BATCH, "--device", "cpu", "--output", output]
    if model:
        drawing += ["--weights", model]
    data: list[Any] = {
        "dreambench": [
            *("--subjects", fabricated.subjects, "--only", "can", "--only", "cat"),
            *("--dino", fabricated.dino, "--clip", fabricated.clip, "--per-prompt", 1),
        ],
        "coco": [
            *("--captions", fabricated.captions, "--photographs", fabricated.photographs),
            *("--features", fabricated.dino, "--count", 20),
        ],
    }[evaluation]
    return [str(word) for word in ("evaluate", evaluation, *data, *drawing, *more)]


def contents(folder: Path) -> dict[str, bytes]:
    """Read everything that a run leaves, but for the number of its process."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != OWNER]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def undisturbed(
    fabricated: Fabricated, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Both evaluations, in one process from beginning to end."""
    folders = {}
    for name in ("dreambench", "coco"):
        folders[name] = tmp_path_factory.mktemp("undisturbed") / name
        assert main(words_of(name, fabricated, folders[name], model=tiny_weights)) == 0
    return folders


def test_dreambench(
    undisturbed: dict[str, Path], fabricated: Fabricated, tiny_weights: Path
) -> None:
    folder = undisturbed["dreambench"]
    found = contents(folder)
    pictures = [name for name in found if name.startswith("pictures/")]
    assert sorted(set(found) - set(pictures)) == sorted([*RESULTS, "run.json"])
    assert len(pictures) == 2 * 25
    results = json.loads(found["results.json"])
    assert results["evaluation"] == "dreambench"
    assert set(results["scores"]) == {"DINO", "CLIP-I", "CLIP-T"}
    for score in results["scores"].values():
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert set(score["subject"]) == {"can", "cat"}
        kinds = {"re-contextualisation", "accessorisation", "modification"}
        assert set(score["kind"]) == kinds
    assert [row["file"] for row in results["pictures"]] == sorted(pictures)
    settings = results["settings"]
    assert (settings["steps"], settings["subjects"], settings["protocol"]) == (1, 2, "paper")
    assert settings["weights"].startswith("sha256:")
    told = "\n".join(results["conventions"])
    assert "every 5 pictures begin with the same 5 noises, of seeds 0 to 4" in told
    wanted = (
        "**Not as published:** subjects 2 instead of 30, steps 1 instead of 100, dino "
        f"{fabricated.dino} instead of facebook/dino-vits16, clip {fabricated.clip} instead of "
        "openai/clip-vit-base-patch32, per prompt 1 instead of 4."
    )
    assert wanted in told
    table = found["table.md"].decode()
    assert "| KOSMOS-G (paper, table 1) | 0.694 | 0.847 | 0.287 |" in table
    assert f"**{tiny_weights}**, measured" in table


def test_pictures_are_those_of_the_pipeline(
    undisturbed: dict[str, Path], fabricated: Fabricated, tiny_weights: Path
) -> None:
    file = undisturbed["dreambench"] / "pictures" / "cat" / "10-0.png"
    recipe = read_recipe(file)
    assert recipe["prompt"] == "<i> wearing a red hat"
    assert recipe["steps"] == 1
    pipeline = KosmosGPipeline.from_pretrained(tiny_weights, device="cpu")
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
    assert len(results["pictures"]) == 20
    assert results["settings"]["scheduler"] == "DDIM"
    told = "\n".join(results["conventions"])
    assert "count 20 instead of 30000" in told
    assert "every 16 pictures begin with the same 16 noises, of seeds 0 to 15" in told
    table = (undisturbed["coco"] / "table.md").read_text()
    assert "| KOSMOS-G (paper, tables 1 and 2) | 10.99 | – |" in table


@pytest.mark.parametrize("evaluation", ["dreambench", "coco"])
def test_two_processes_find_what_one_does(
    evaluation: str,
    undisturbed: dict[str, Path],
    fabricated: Fabricated,
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    words = words_of(evaluation, fabricated, tmp_path / "run", model=tiny_weights)
    assert run_together(evaluate, words) == [0, 0]
    assert contents(tmp_path / "run") == contents(undisturbed[evaluation])


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_as_if_it_had_not_been(
    moment: str,
    undisturbed: dict[str, Path],
    fabricated: Fabricated,
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    words = words_of("dreambench", fabricated, tmp_path / "run", model=tiny_weights)
    assert run_to_the_end(evaluate_and_die, words, moment) == -9
    left = tmp_path / "run" / "pictures"
    whole = [path for path in left.rglob("*.png") if ".part" not in path.name]
    kept = {path: path.stat().st_mtime_ns for path in whole}
    assert not (tmp_path / "run" / "table.md").exists()
    assert main(words) == 0
    assert contents(tmp_path / "run") == contents(undisturbed["dreambench"])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # none was made again


def test_two_killed_processes_are_followed_by_one(
    undisturbed: dict[str, Path], fabricated: Fabricated, tiny_weights: Path, tmp_path: Path
) -> None:
    """And one that is killed by two."""
    words = words_of("coco", fabricated, tmp_path / "run", model=tiny_weights)
    ended = run_together(evaluate_where_the_first_dies, words, "between pictures of a batch")
    assert ended[0] == -9
    assert 0 < len([*(tmp_path / "run" / "pictures").rglob("*.png")]) < 20
    assert run_together(evaluate, words) == [0, 0]
    assert contents(tmp_path / "run") == contents(undisturbed["coco"])
    picture = next((tmp_path / "run" / "pictures").rglob("*.png"))
    picture.write_bytes(picture.read_bytes()[:-5])
    assert main(words) == 0
    assert contents(tmp_path / "run") == contents(undisturbed["coco"])


def test_a_finished_run_is_scored_again_without_its_model(
    undisturbed: dict[str, Path],
    fabricated: Fabricated,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(runs.KosmosGPipeline, "from_pretrained", fail)
    before = contents(undisturbed["dreambench"])
    words = words_of("dreambench", fabricated, undisturbed["dreambench"], model=tiny_weights)
    assert main(words) == 0
    assert contents(undisturbed["dreambench"]) == before


def test_the_clean_protocol(fabricated: Fabricated, tiny_weights: Path, tmp_path: Path) -> None:
    more = ["--protocol", "clean", "--seed", 5, "--name-nouns"]
    words = words_of("dreambench", fabricated, tmp_path / "run", *more, model=tiny_weights)
    assert main([*words, "--only", "vase"]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(results["pictures"]) == 25 * len(SUBJECTS)
    places = {"can": 4, "cat": 6, "vase": 28}
    for row in results["pictures"]:
        _, subject, name = row["file"].split("/")
        assert row["seed"] == 5 + 25 * places[subject] + int(name[:2])
        assert f"{subject} <i>" in row["prompt"]
    told = "\n".join(results["conventions"])
    assert "picture n, from 0, is drawn from seed 5 + n" in told
    assert "noun before its picture" in told


def test_other_settings_are_refused(
    undisturbed: dict[str, Path],
    fabricated: Fabricated,
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(undisturbed["dreambench"])
    for more, message in (
        (["--steps", 2], "steps is 2, was 1"),
        (["--protocol", "clean"], "protocol is 'clean', was 'paper'"),
        (["--only", "vase"], "pictures is 75, was 50"),
        (["--name-nouns"], "prompts is 'sha256:"),
    ):
        words = words_of(
            *("dreambench", fabricated, undisturbed["dreambench"], *more), model=tiny_weights
        )
        assert main(words) == 1
        assert message in capsys.readouterr().err
    assert contents(undisturbed["dreambench"]) == before


def test_a_pipeline_of_diffusers_in_its_place(
    fabricated: Fabricated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It gets words alone, and is asked neither for pictures nor for safety."""
    words = words_of("dreambench", fabricated, tmp_path / "run", "--only", "vase")
    assert main([*words, "--pipeline", str(fabricated.pipeline)]) == 0
    assert f"**{fabricated.pipeline}**, measured" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["pictures"][75 - 5]["prompt"] == "a red vase"
    assert "the model saw no photograph" in "\n".join(results["conventions"])
    pixels = [
        np.asarray(Image.open(tmp_path / "run" / row["file"])) for row in results["pictures"][:9]
    ]
    assert all(each.std() > 1 for each in pixels)  # none is black


@pytest.mark.parametrize(
    ("evaluation", "more", "message"),
    [
        ("dreambench", ["--subjects", "nowhere"], "nowhere lacks 2 of 2 photographs"),
        ("dreambench", ["--only", "cow"], "has no subject cow"),
        ("dreambench", ["--steps", "0"], "--steps is 0"),
        ("dreambench", ["--per-prompt", "0"], "--per-prompt is 0"),
        ("dreambench", ["--guidance-scale", "0.5"], "--guidance-scale is 0.5"),
        ("dreambench", ["--seed", "4294967295", "--protocol", "clean"], "Lower --seed"),
        ("dreambench", ["--dino", "nobody/none"], "nobody/none cannot be loaded"),
        ("dreambench", ["--scheduler", "LCM", "--steps", "99"], "LCM takes at most"),
        ("dreambench", ["--pipeline", "somewhere"], "not both"),
        ("dreambench", ["--device", "tpu"], "device 'tpu' cannot be used"),
        ("coco", ["--captions", "none.json"], "none.json cannot be used"),
        ("coco", ["--photographs", "nowhere"], "nowhere lacks 9 of 9 photographs"),
        ("coco", ["--features", "none.pth"], "the file with the weights of FID's Inception"),
        ("coco", ["--count", "1"], "--count is 1"),
        ("coco", ["--count", "46"], "45 captions, fewer than the 46"),
        ("coco", ["--weights", "nowhere"], "There are no weights in nowhere"),
    ],
)
def test_mistakes(
    evaluation: str,
    more: list[str],
    message: str,
    fabricated: Fabricated,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = words_of(evaluation, fabricated, tmp_path / "run", model=tiny_weights)
    assert main([*words, *more]) == 1
    assert message in capsys.readouterr().err
    assert not [*tmp_path.rglob("*.png")]


def test_who_drew_the_pictures_counts(
    fabricated: Fabricated, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of("coco", fabricated, tmp_path / "run", model=tiny_weights)) == 0
    words = words_of("coco", fabricated, tmp_path / "run", "--pipeline", tiny_weights)
    assert main(words) == 1
    assert "diffusers is True, was False" in capsys.readouterr().err


def test_a_model_does_not_hold_its_own_pictures(
    fabricated: Fabricated, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of("coco", fabricated, tiny_weights / "run", model=tiny_weights)) == 1
    assert "lies in the model's own folder" in capsys.readouterr().err


def test_a_broken_photograph_is_found_before_anything_is_drawn(
    fabricated: Fabricated, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subjects = tmp_path / "dataset"
    shutil.copytree(fabricated.subjects, subjects)
    file = subjects / "cat" / "04.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    words = words_of("dreambench", fabricated, tmp_path / "run", model=tiny_weights)
    assert main([*words, "--subjects", str(subjects)]) == 1
    assert f"{file} is damaged" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_broken_photograph_of_coco(
    fabricated: Fabricated, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends a run; mended, the same command goes on without drawing."""
    photographs = tmp_path / "val2014"
    shutil.copytree(fabricated.photographs, photographs)
    file = sorted(photographs.iterdir())[4]
    whole = file.read_bytes()
    file.write_bytes(b"<html>not found</html>")
    words = words_of("coco", fabricated, tmp_path / "run", model=tiny_weights)
    words += ["--photographs", str(photographs)]
    assert main(words) == 1
    assert f"{file} is not a picture" in capsys.readouterr().err
    pictures = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert len(pictures) == 20
    file.write_bytes(whole)
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == pictures


def test_photographs_that_changed(
    fabricated: Fabricated, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are what the pictures are drawn from."""
    subjects = tmp_path / "dataset"
    for name, stem in (("can", "01"), ("cat", "04")):
        (subjects / name).mkdir(parents=True)
        photograph(1, (64, 64)).save(subjects / name / f"{stem}.png")
    words = words_of("dreambench", fabricated, tmp_path / "run", model=tiny_weights)
    assert main([*words, "--subjects", str(subjects)]) == 0
    capsys.readouterr()
    photograph(2, (64, 64)).save(subjects / "cat" / "04.png")
    assert main([*words, "--subjects", str(subjects)]) == 1
    assert "photographs is 'sha256:" in capsys.readouterr().err


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
    undisturbed: dict[str, Path], fabricated: Fabricated, tiny_weights: Path, tmp_path: Path
) -> None:
    """Through accelerate's own launcher: nothing is stood in for."""
    more = words_of("dreambench", fabricated, tmp_path / "run", "--device", "cpu")[2:]
    done = run_recipe(
        *("dreambench", tiny_weights, fabricated.subjects, tmp_path / "run", *more),
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
    found = vars(build_parser().parse_args(words[words.index("kosmosg") + 1 :]))
    assert {key: found[key] for key in wanted} == wanted
    assert found["protocol"] == "paper"
    assert [str(found[folder]) for folder in folders] == folders
    assert run_recipe(name, *folders, PYTHON=str(python), BASELINE="1").returncode == 0
    words = json.loads(written.read_text())
    found = vars(build_parser().parse_args(words[words.index("kosmosg") + 1 :]))
    assert (found["pipeline"], found["weights"]) == ("weights", None)

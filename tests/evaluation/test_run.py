"""Runs of the paper's evaluations in which something else stands in the model's place."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kosmosg.cli.main import main
from tests.evaluation.commands import contents, words_of
from tests.evaluation.fabricated import SUBJECTS, Fabricated, photograph
from tests.evaluation.stand_in import painting


@pytest.fixture(autouse=True, scope="module")
def painted() -> Iterator[None]:
    """No model is opened."""
    with painting():
        yield


@pytest.fixture(scope="module")
def undisturbed(
    fabricated: Fabricated, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """DreamBench in one process from beginning to end."""
    folder = tmp_path_factory.mktemp("undisturbed") / "dreambench"
    assert main(words_of("dreambench", fabricated, folder, model=tiny_weights)) == 0
    return folder


def test_the_clean_protocol(fabricated: Fabricated, tiny_weights: Path, tmp_path: Path) -> None:
    more = ["--protocol", "clean", "--seed", 5, "--name-nouns"]
    words = words_of(
        *("dreambench", fabricated, tmp_path / "run", *more), model=tiny_weights, only=SUBJECTS
    )
    assert main(words) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(results["images"]) == 25 * len(SUBJECTS)
    places = {"can": 4, "cat": 6, "vase": 28}
    for row in results["images"]:
        _, subject, name = row["file"].split("/")
        assert row["seed"] == 5 + 25 * places[subject] + int(name[:2])
        assert f"{subject} <i>" in row["prompt"]
    told = "\n".join(results["conventions"])
    assert "image n, from 0, begins with the noise of seed 5 + n" in told
    assert "noun before its image" in told


def test_other_settings_are_refused(
    undisturbed: Path,
    fabricated: Fabricated,
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(undisturbed)
    for more, message in (
        (["--steps", 2], "steps was 1 and is 2"),
        (["--protocol", "clean"], "protocol was 'paper' and is 'clean'"),
        (["--only", "vase"], "images was 50 and is 75"),
        (["--name-nouns"], "prompts was 'sha256:"),
    ):
        words = words_of(*("dreambench", fabricated, undisturbed, *more), model=tiny_weights)
        assert main(words) == 1
        assert message in capsys.readouterr().err
    assert contents(undisturbed) == before


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


def test_who_generated_the_images_counts(
    fabricated: Fabricated, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of("coco", fabricated, tmp_path / "run", model=tiny_weights)) == 0
    words = words_of("coco", fabricated, tmp_path / "run", "--pipeline", tiny_weights)
    assert main(words) == 1
    assert "diffusers was False and is True" in capsys.readouterr().err


def test_a_model_does_not_hold_its_own_images(
    fabricated: Fabricated, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of("coco", fabricated, tiny_weights / "run", model=tiny_weights)) == 1
    assert "lies in the model's own folder" in capsys.readouterr().err


def test_a_broken_photograph_is_found_before_anything_is_generated(
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
    """It ends a run; mended, the same command goes on without generating."""
    photographs = tmp_path / "val2014"
    shutil.copytree(fabricated.photographs, photographs)
    file = sorted(photographs.iterdir())[4]
    whole = file.read_bytes()
    file.write_bytes(b"<html>not found</html>")
    words = words_of("coco", fabricated, tmp_path / "run", model=tiny_weights)
    words += ["--photographs", str(photographs)]
    assert main(words) == 1
    assert f"{file} is not an image" in capsys.readouterr().err
    images = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert len(images) == 20
    file.write_bytes(whole)
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == images


def test_photographs_that_changed(
    fabricated: Fabricated, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are what the images are made from."""
    subjects = tmp_path / "dataset"
    for name, stem in (("can", "01"), ("cat", "04")):
        (subjects / name).mkdir(parents=True)
        photograph(1, (64, 64)).save(subjects / name / f"{stem}.png")
    words = words_of("dreambench", fabricated, tmp_path / "run", model=tiny_weights)
    assert main([*words, "--subjects", str(subjects)]) == 0
    capsys.readouterr()
    photograph(2, (64, 64)).save(subjects / "cat" / "04.png")
    assert main([*words, "--subjects", str(subjects)]) == 1
    assert "photographs was 'sha256:" in capsys.readouterr().err


def test_a_caption_that_is_too_long_is_found_before_anything_is_generated(
    fabricated: Fabricated, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(fabricated.captions.read_text())
    long = "a dog and " * 1000
    for entry in content["annotations"]:
        entry["caption"] = long if entry["id"] == 7 else entry["caption"]
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps(content))
    more = ("--captions", captions, "--count", len(content["annotations"]))
    words = words_of("coco", fabricated, tmp_path / "run", *more, model=tiny_weights)
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "The prompt a dog and a dog" in told
    assert "tokens long" in told
    assert not (tmp_path / "run").exists()

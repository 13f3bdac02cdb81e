"""COCO: which captions, which photographs, and distances that are known."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from PIL import Image

from kosmosg.diffusion.settings import MAX_SEED
from kosmosg.errors import EvaluationError
from kosmosg.evaluation.coco import Coco, find_photographs, make_jobs, read_captions
from kosmosg.evaluation.features import DinoExtractor
from kosmosg.evaluation.image_folder import ImageFolder
from kosmosg.evaluation.protocol import PROTOCOLS
from kosmosg.prompts.images import central_square, open_image
from tests.evaluation.fabricated import CAPTIONS_OF_EACH, PHOTOGRAPHS, Fabricated

CPU = torch.device("cpu")
PAPER, CLEAN = PROTOCOLS["paper"], PROTOCOLS["clean"]
CAPTIONS = [f"caption {n}" for n in range(100)]


def test_captions_are_chosen_as_in_the_authors_script() -> None:
    random.seed(0)
    expected = random.sample([{"caption": caption} for caption in CAPTIONS], 40)
    jobs = make_jobs(CAPTIONS, PAPER, count=40)
    assert [job.prompt for job in jobs] == [entry["caption"] for entry in expected]
    assert [job.prompt for job in make_jobs(CAPTIONS, PAPER, count=40, seed=1)] != [
        job.prompt for job in jobs
    ]


def test_seeds_and_names() -> None:
    assert [job.seed for job in make_jobs(CAPTIONS, PAPER, count=40, seed=5)] == [
        5 + n % 16 for n in range(40)
    ]
    jobs = make_jobs(CAPTIONS * 25, CLEAN, count=2100, seed=5)
    assert [job.seed for job in jobs] == [*range(5, 2105)]
    assert [jobs[n].name for n in (0, 999, 1000)] == ["00/00000", "00/00999", "01/01000"]
    assert len({job.name for job in jobs}) == 2100


def test_too_many() -> None:
    with pytest.raises(EvaluationError, match="100 captions, fewer than the 30000"):
        make_jobs(CAPTIONS, PAPER)
    with pytest.raises(EvaluationError, match="--seed is"):
        make_jobs(CAPTIONS, CLEAN, count=2, seed=MAX_SEED)


@pytest.mark.parametrize("caption", ["a dog <i>", "half a \ud800"])
def test_captions_that_are_no_prompts(caption: str) -> None:
    with pytest.raises(EvaluationError, match=r"cannot be used\. Mend it in the file of"):
        make_jobs([*CAPTIONS, caption], PAPER, count=len(CAPTIONS) + 1)


def test_a_photograph_that_is_listed_twice(tmp_path: Path) -> None:
    images = [{"file_name": "a.jpg"}, {"file_name": "b.jpg"}, {"file_name": "a.jpg"}]
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"annotations": [], "images": images}))
    assert read_captions(file) == ([], ["a.jpg", "b.jpg"])


def test_equal_names_in_two_folders_are_two_photographs(tmp_path: Path) -> None:
    names = ["one/a.jpg", "two/a.jpg", "b.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_photographs(tmp_path, names) == [tmp_path / name for name in names]
    # Folders that are not there are left out, unless one file would then count twice.
    assert find_photographs(tmp_path, ["val2014/b.jpg"]) == [tmp_path / "b.jpg"]
    with pytest.raises(EvaluationError, match=r"b\.jpg would count twice: .* val2014/b\.jpg"):
        find_photographs(tmp_path, ["b.jpg", "val2014/b.jpg"])


def test_files(fabricated: Fabricated, tmp_path: Path) -> None:
    captions, names = read_captions(fabricated.captions)
    assert len(captions) == PHOTOGRAPHS * CAPTIONS_OF_EACH
    assert captions[1] == "a dog number 1 on the beach"
    paths = find_photographs(fabricated.photographs, names)
    assert [path.name for path in paths] == names
    with pytest.raises(EvaluationError, match=r"lacks 9 of 9 photographs: COCO_val2014_0+\.jpg, "):
        find_photographs(tmp_path, names)
    with pytest.raises(EvaluationError, match="lists no photographs"):
        find_photographs(fabricated.photographs, [])
    nothing = '{"annotations": [{"caption": null}], "images": []}'
    blank = '{"annotations": [{"caption": " "}], "images": []}'
    deep = "[" * 100_000
    for content in ("", "[]", '{"annotations": [{}], "images": []}', nothing, blank, deep):
        (tmp_path / "captions.json").write_text(content)
        with pytest.raises(EvaluationError, match=r"captions_val2014\.json"):
            read_captions(tmp_path / "captions.json")
    (tmp_path / "captions.json").write_text(
        json.dumps({"annotations": [], "images": [{"file_name": "../../secret.jpg"}]})
    )
    (outside,) = read_captions(tmp_path / "captions.json")[1]
    with pytest.raises(EvaluationError, match=r": secret\.jpg"):
        find_photographs(tmp_path, [outside])


def evaluator(fabricated: Fabricated, folder: Path, processes: PartialState, protocol: str) -> Coco:
    captions, names = read_captions(fabricated.captions)
    return Coco(
        jobs=make_jobs(captions, PROTOCOLS[protocol], count=2 * PHOTOGRAPHS),
        photographs=find_photographs(fabricated.photographs, names),
        folder=ImageFolder.open(folder, {}, {}, processes),
        extractor=DinoExtractor(fabricated.dino, CPU),
        protocol=PROTOCOLS[protocol],
        processes=processes,
        batch=5,
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_photographs_themselves_are_no_distance_away(
    fabricated: Fabricated, tmp_path: Path, alone: PartialState, protocol: str
) -> None:
    coco = evaluator(fabricated, tmp_path / "same", alone, protocol)
    squares = [central_square(open_image(path)) for path in coco.photographs]
    given = iter([*squares, *squares])

    def photographs(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return [next(given) for _ in prompts]

    def nothing(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return [Image.new("RGB", (32, 32), (0, 0, 200 + seed % 2)) for seed in seeds]

    found = dict(coco(photographs))
    assert set(found) == {"FID"}
    far = dict(evaluator(fabricated, tmp_path / "far", alone, protocol)(nothing))["FID"]
    # Each photograph came twice, which makes the covariance smaller by 16/17 of an eighth's step;
    # in the older protocol it was scaled twice besides.
    assert -1e-3 < found["FID"].value < 0.05 * far.value
    assert far.low < far.value < far.high
    assert far.samples == 2 * PHOTOGRAPHS
    assert len([*coco.cards()]) == len([*coco.images()]) == 2 * PHOTOGRAPHS

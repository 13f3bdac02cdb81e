"""DreamBench: its data, its jobs, and models whose scores are known."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from PIL import Image

from kosmosg.diffusion.settings import MAX_SEED
from kosmosg.errors import EvaluationError
from kosmosg.evaluation.dreambench import (
    DreamBench,
    Wording,
    find_photographs,
    load_subjects,
    load_templates,
    make_jobs,
)
from kosmosg.evaluation.features import ClipExtractor, DinoExtractor
from kosmosg.evaluation.image_folder import ImageFolder
from kosmosg.evaluation.protocol import PROTOCOLS, ImageJob
from kosmosg.prompts.images import open_image
from tests.evaluation.fabricated import SUBJECTS, Fabricated

CPU = torch.device("cpu")
PAPER, CLEAN = PROTOCOLS["paper"], PROTOCOLS["clean"]
ANYWHERE = {subject.name: Path(subject.name) for subject in load_subjects()}


def all_jobs(protocol: str = "paper", **options: object) -> list[ImageJob]:
    return make_jobs(load_subjects(), ANYWHERE, PROTOCOLS[protocol], **options)  # type: ignore[arg-type]


def test_the_subjects() -> None:
    subjects = load_subjects()
    assert Counter(subject.set for subject in subjects) == {"objects": 21, "pets": 9}
    assert {subject.noun for subject in subjects if subject.set == "pets"} == {"cat", "dog"}
    kept = {subject.name: (subject.noun, subject.photograph) for subject in subjects}
    assert kept["backpack_dog"] == ("backpack", "02")
    assert kept["grey_sloth_plushie"] == ("stuffed animal", "04")
    assert kept["dog5"] == ("dog", "00")
    assert kept["red_cartoon"] == ("cartoon", "00")
    assert sorted(kept) == list(kept)


def test_the_templates() -> None:
    objects, pets = load_templates("objects"), load_templates("pets")
    assert len(objects) == len(pets) == 25
    assert objects[:10] == pets[:10]
    assert objects[20:] == pets[20:]
    assert not {each.text for each in objects[10:20]} & {each.text for each in pets}
    assert objects[14].text == "a {} floating in an ocean of milk"
    assert pets[13].text == "a {} wearing a black top hat and a monocle"
    assert [(each.text, each.prompt) for each in objects[20:]] == [  # paper, table 3
        ("a red {}", "{}, red"),
        ("a purple {}", "{}, purple"),
        ("a shiny {}", "{}, shiny"),
        ("a wet {}", "{}, wet"),
        ("a cube shaped {}", "{}, cube shaped"),
    ]
    for template in (*objects[:20], *pets[:20]):
        assert template.text == f"a {template.prompt}"
    assert Counter(each.kind for each in pets) == {
        "re-contextualisation": 10,
        "accessorisation": 10,
        "modification": 5,
    }


def test_prompts() -> None:
    (cat2,) = load_subjects(["cat2"])
    template = load_templates("pets")[20]
    assert Wording().prompt(template, cat2) == "<i>, red"
    assert Wording(noun=True).prompt(template, cat2) == "cat <i>, red"
    assert Wording(images=False).prompt(template, cat2) == "a red cat"


def test_the_jobs_of_the_paper() -> None:
    jobs = all_jobs()
    assert len(jobs) == len({job.name for job in jobs}) == 3000
    assert len({(job.subject, job.prompt) for job in jobs}) == 750
    # A batch of the authors': five prompts, the first image of each, then the second, …
    assert [job.seed for job in jobs[:20]] == [
        *(0, 5, 10, 15, 1, 6, 11, 16, 2, 7, 12, 17, 3, 8, 13, 18, 4, 9, 14, 19)
    ]
    assert [job.seed for job in jobs] == [job.seed for job in jobs[:20]] * 150
    job = jobs[26 * 4 + 3]
    assert (job.name, job.prompt, job.text) == (
        "backpack_dog/01-3",
        "<i> in the snow",
        "a backpack in the snow",
    )
    assert job.images == (Path("backpack_dog"),)


def test_clean_jobs_count_up() -> None:
    assert [job.seed for job in all_jobs("clean", seed=7)] == [*range(7, 3007)]
    assert all_jobs("clean", wording=Wording(images=False))[0].images == ()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_part_has_the_seeds_of_the_whole(protocol: str) -> None:
    part = make_jobs(load_subjects(["dog6", "vase"]), ANYWHERE, PROTOCOLS[protocol], seed=3)
    assert part == [job for job in all_jobs(protocol, seed=3) if job.subject in ("dog6", "vase")]


def test_seeds_have_an_end() -> None:
    assert all_jobs("clean", seed=MAX_SEED - 2999)[-1].seed == MAX_SEED
    with pytest.raises(EvaluationError, match="Lower --seed"):
        all_jobs("clean", seed=MAX_SEED - 2998)


def test_a_subject_that_there_is_not() -> None:
    with pytest.raises(EvaluationError, match=r"no subject cow, fish\. It has backpack, "):
        load_subjects(["cat", "fish", "cow"])


def test_photographs(fabricated: Fabricated, tmp_path: Path) -> None:
    subjects = load_subjects(SUBJECTS)
    found = find_photographs(fabricated.subjects, subjects)
    assert found == find_photographs(fabricated.subjects.parent, subjects)
    assert found["cat"] == fabricated.subjects / "cat" / "04.jpg"
    shutil.copytree(fabricated.subjects, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "vase")
    with pytest.raises(EvaluationError, match=r"lacks 2 of 4 .*: bear_plushie/03\.jpg, vase/02"):
        find_photographs(tmp_path / "part", load_subjects([*SUBJECTS, "bear_plushie"]))


def evaluator(
    fabricated: Fabricated, folder: Path, processes: PartialState, per_prompt: int = 1
) -> DreamBench:
    subjects = load_subjects(SUBJECTS)
    photographs = find_photographs(fabricated.subjects, subjects)
    return DreamBench(
        jobs=make_jobs(subjects, photographs, CLEAN, per_prompt=per_prompt),
        photographs=photographs,
        folder=ImageFolder.open(folder, {}, {}, processes),
        dino=DinoExtractor(fabricated.dino, CPU),
        clip=ClipExtractor(fabricated.clip, CPU),
        processes=processes,
        batch=7,
    )


def test_who_gives_the_photographs_back_is_like_them(
    fabricated: Fabricated, tmp_path: Path, alone: PartialState
) -> None:
    def generate(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return [image for (image,) in images]

    dreambench = evaluator(fabricated, tmp_path / "run", alone)
    found = dict(dreambench(generate))
    for name, estimate in found.items():
        if not name.startswith("CLIP-T"):
            assert estimate.value == pytest.approx(1.0, abs=1e-6), name
    assert {name for name in found if name.startswith("DINO/subject")} == {
        f"DINO/subject/{name}" for name in SUBJECTS
    }
    # What CLIP-T compares with, computed in another way.
    job = next(job for job in dreambench.jobs if job.name == "cat/21-0")
    assert job.text == "a purple cat"
    image = dreambench.clip([open_image(dreambench.photographs["cat"])])
    text = dreambench.clip.texts([job.text])
    expected = torch.cosine_similarity(image, text).item()
    number = list(dreambench.jobs).index(job)
    assert dreambench.per_image["CLIP-T"][number] == pytest.approx(expected, abs=1e-5)
    assert found["CLIP-T"].value == pytest.approx(max(np.mean(dreambench.per_image["CLIP-T"]), 0.0))


def test_each_image_is_compared_with_its_own_subject(
    fabricated: Fabricated, tmp_path: Path, alone: PartialState
) -> None:
    """Who gives another subject's photograph is as like as the two photographs are."""
    cat = open_image(fabricated.subjects / "cat" / "04.jpg")

    def generate(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return [cat] * len(prompts)

    dreambench = evaluator(fabricated, tmp_path / "run", alone, per_prompt=2)
    found = dict(dreambench(generate))
    assert found["DINO/subject/cat"].value == pytest.approx(1.0, abs=1e-6)
    for name in ("can", "vase"):
        pair = [cat, open_image(dreambench.photographs[name])]
        one, other = dreambench.dino(pair)
        expected = torch.cosine_similarity(one, other, dim=0).item()
        assert found[f"DINO/subject/{name}"].value == pytest.approx(max(expected, 0), abs=1e-5)
        assert expected < 0.99
    images = [*dreambench.images()]
    assert len(images) == 150
    assert set(images[0]) == {"file", "prompt", "seed", "text", "DINO", "CLIP-I", "CLIP-T"}
    cards = [*dreambench.cards()]
    assert len(cards) == 75
    assert [len(card.inputs) for card in cards[:26]] == [1, *[0] * 24, 1]

"""Compositional samples of the drawn world, whose captions, entities and masks are known."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.curation.engine import ShardPlan, run_here
from kosmosg.curation.entity_extraction import Answer
from kosmosg.curation.output import OutputFolder
from kosmosg.curation.pipelines import Models, Pipeline, make_openimages
from kosmosg.data.entities import square_box
from kosmosg.data.options import EntityOptions
from kosmosg.data.preprocessing import PromptPreparer
from kosmosg.data.schema import CompositionalSample, decode_image
from kosmosg.data.shards import open_shards
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from tests.curation.folders import shards
from tests.curation.world import OPTIONS, draw, oracles, write_images

COUNT, PER_SHARD = 24, 10


def make(pipeline: Pipeline, directory: Path, per_shard: int = PER_SHARD) -> OutputFolder:
    """Make all shards in this process."""
    output = OutputFolder(directory=directory, per_shard=per_shard)
    output.begin(pipeline.settings)
    plans = [
        ShardPlan(number=n, listing=listing) for n, listing in enumerate(pipeline.source.listings)
    ]
    assert list(run_here(plans, pipeline.steps, output)) == [plan.number for plan in plans]
    output.end()
    return output


def pipeline_of(folder: Path, models: Models | None = None, **changes: Any) -> Pipeline:
    return make_openimages(
        folder,
        replace(OPTIONS, **changes),
        per_shard=PER_SHARD,
        models=models or oracles(COUNT),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("world") / "images", COUNT)


@pytest.fixture(scope="module")
def made(images: Path, tmp_path_factory: pytest.TempPathFactory) -> OutputFolder:
    return make(pipeline_of(images), tmp_path_factory.mktemp("made") / "set")


def read(directory: Path) -> Iterator[CompositionalSample]:
    for shard in open_shards(directory):
        scan = shard.scan()
        assert not scan.damage
        for entry in scan.entries:
            sample = shard.read(entry, np.random.default_rng(0))
            assert isinstance(sample, CompositionalSample)
            yield sample


def test_captions_and_entities_are_those_of_the_world(made: OutputFolder) -> None:
    samples = list(read(made.directory))
    assert len(samples) == COUNT
    for seed, sample in enumerate(samples):
        caption = draw(seed).caption
        assert sample.caption == caption.text
        assert [entity.span for entity in sample.entities] == [
            (span.start, span.end) for span in caption.spans
        ]


def test_images_and_masks_are_those_of_the_world(made: OutputFolder) -> None:
    """Crops show what the true masks cover and a little around it, and the rest is white."""
    for seed, sample in enumerate(read(made.directory)):
        known = draw(seed)
        target = known.image.resize((64, 64), Image.Resampling.BICUBIC)
        assert np.array_equal(np.asarray(sample.target), np.asarray(target))
        for entity, mask in zip(sample.entities, known.masks, strict=True):
            # The true box, within the width of the dilation.
            left, top, right, bottom = square_box(mask > 0.3, margin=1)
            crop = np.asarray(decode_image(entity.crop), dtype=float)
            true = known.image.resize(
                (64, 64), Image.Resampling.BICUBIC, (left, top, right, bottom)
            )
            assert abs(crop - np.asarray(true, dtype=float)).mean() < 1, seed
            masked = np.asarray(decode_image(entity.masked_crop), dtype=float)
            inside = Image.fromarray(np.asarray(mask > 0.3, dtype=np.float32)).resize(
                (64, 64), Image.Resampling.BILINEAR, (left, top, right, bottom)
            )
            share = np.asarray(inside)
            assert abs(masked - crop)[share > 0.95].mean() < 2, seed
            assert (masked[share < 0.01] > 250).mean() > 0.85, seed


def test_training_reads_them(made: OutputFolder, tiny_weights: Path) -> None:
    preparer = PromptPreparer(
        tokenizer=KosmosGTokenizer.from_pretrained(tiny_weights / "tokenizer"),
        image_slots=8,
        image_size=56,
        target_size=64,
        entities=EntityOptions(drop_text=0.0),
    )
    for sample in read(made.directory):
        prepared = preparer(sample, np.random.default_rng(0))
        assert len(prepared.pixels) == len(sample.entities)
        assert prepared.target is not None
        assert prepared.caption == sample.caption


def test_every_sample_says_where_it_is_from(made: OutputFolder) -> None:
    names = []
    for path in sorted(made.directory.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".json"):
                    file = archive.extractfile(member)
                    assert file is not None
                    names.append((member.name, json.load(file)["source"]))
    assert names == [(f"{n // 10 * 10 + n % 10:09d}.json", f"{n:03d}.png") for n in range(COUNT)]


def test_counts(made: OutputFolder) -> None:
    summaries = list(made.summaries())
    assert [summary["samples"] for summary in summaries] == [10, 10, 4]
    names = ["read", "caption", "entities", "masks", "cut"]
    for summary in summaries:
        assert [step["step"] for step in summary["steps"]] == names
        assert all(step["came"] == step["kept"] == summary["samples"] for step in summary["steps"])
        assert all(step["set_aside"] == {} for step in summary["steps"])
    entities = sum(len(draw(seed).caption.spans) for seed in range(COUNT))
    assert sum(summary["entities"]["kept"] for summary in summaries) == entities
    assert [path.read_text() for path in (made.directory / "set-aside").iterdir()] == [""] * 3


def test_the_same_bytes_again(made: OutputFolder, images: Path, tmp_path: Path) -> None:
    again = make(pipeline_of(images), tmp_path / "again")
    assert shards(again.directory) == shards(made.directory)


def say(answers: dict[str, str], captions: list[str]) -> list[Answer]:
    return [Answer(text=answers[caption], ended=True) for caption in captions]


def test_what_a_model_does_not_find_is_set_aside(images: Path, tmp_path: Path) -> None:
    """One sample for each way in which a caption or a mask can be of no use."""
    models = oracles(COUNT)
    texts = [draw(seed).caption.text for seed in range(10)]
    answers = dict.fromkeys(texts, "ball, unicorn")
    found = {0: "none", 1: "unicorn, a dragon", 2: "### Instruction", 3: ""}
    answers |= {texts[seed]: answer for seed, answer in found.items()}
    words = texts[4].split()
    answers |= {texts[seed]: words[-1] for seed in (4,)}

    def nowhere(images: Any, listed: Any) -> list[tuple[np.ndarray, ...]]:
        return [tuple(np.full((8, 8), -9, np.float16) for _ in each) for each in listed]

    few = tmp_path / "few"
    few.mkdir()
    for seed in range(5):
        (few / f"{seed}.png").symlink_to(images / f"{seed:03d}.png")
    stubborn = replace(models, finder=lambda: partial(say, answers), segmenter=lambda: nowhere)
    output = make(pipeline_of(few, stubborn), tmp_path / "set")
    assert not list(output.directory.glob("*.tar"))
    lines = (output.directory / "set-aside" / "000000.jsonl").read_text().splitlines()
    rejections = {each["key"]: each for each in map(json.loads, lines)}
    assert {key: each["reason"] for key, each in rejections.items()} == {
        "0.png": "no-entities",
        "1.png": "entities-not-in-caption",
        "2.png": "bad-answer",
        "3.png": "bad-answer",
        "4.png": "empty-masks",
    }
    assert rejections["1.png"]["dropped"] == [
        ["unicorn", "not-in-caption"],
        ["a dragon", "not-in-caption"],
    ]
    assert rejections["4.png"]["dropped"] == [[words[-1], "empty-mask"]]
    (summary,) = output.summaries()
    assert summary["samples"] == summary["bytes"] == 0
    assert summary["entities"] == {"not-in-caption": 2, "empty-mask": 1, "kept": 0}

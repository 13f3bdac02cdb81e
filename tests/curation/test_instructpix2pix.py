"""The CLIP-filtered set of InstructPix2Pix as samples of edits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.curation.instructpix2pix import open_edits
from kosmosg.curation.options import EditOptions
from kosmosg.curation.output import OutputFolder
from kosmosg.curation.pipelines import make_instructpix2pix
from kosmosg.data.preprocessing import PromptPreparer
from kosmosg.data.schema import EditSample
from kosmosg.data.shards import open_shards
from kosmosg.errors import CurationError
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from tests.curation.test_openimages import make

SEEDS: list[Any] = [["0000000", ["11", "12"]], ["0000001", ["7"]], ["0000002", ["3", "4"]]]


def blobs(seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """An image that JPEG does no harm to."""
    values = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "clip-filtered"
    for number, (name, seeds) in enumerate(SEEDS):
        (root / name).mkdir(parents=True)
        prompt = {"input": f"image {number}", "edit": f"make it {number}", "output": "…"}
        (root / name / "prompt.json").write_text(json.dumps(prompt), encoding="utf-8")
        (root / name / "metadata.jsonl").touch()
        for seed in seeds:
            for half in (0, 1):
                blobs(int(seed) + 100 * half).save(root / name / f"{seed}_{half}.jpg", quality=95)
    (root / "seeds.json").write_text(json.dumps(SEEDS), encoding="utf-8")
    return root


def make_set(folder: Path, directory: Path, per_shard: int = 2) -> OutputFolder:
    pipeline = make_instructpix2pix(folder, EditOptions(side=64), per_shard=per_shard)
    return make(pipeline, directory, per_shard)


def read(directory: Path) -> list[EditSample]:
    samples = []
    for shard in open_shards(directory):
        for entry in shard.scan().entries:
            sample = shard.read(entry, np.random.default_rng(0))
            assert isinstance(sample, EditSample)
            samples.append(sample)
    return samples


def test_every_pair_becomes_a_sample(folder: Path, tmp_path: Path, tiny_weights: Path) -> None:
    output = make_set(folder, tmp_path / "set")
    assert [summary["samples"] for summary in output.summaries()] == [2, 2, 1]
    samples = read(output.directory)
    numbers = [0, 0, 1, 2, 2]
    assert [sample.caption for sample in samples] == [f"image {n}" for n in numbers]
    assert [sample.instruction for sample in samples] == [f"make it {n}" for n in numbers]
    preparer = PromptPreparer(
        tokenizer=KosmosGTokenizer.from_pretrained(tiny_weights / "tokenizer"),
        image_slots=8,
        image_size=56,
        target_size=64,
    )
    for sample, seed in zip(samples, (11, 12, 7, 3, 4), strict=True):
        # The shorter side is scaled, and the form is kept.
        assert sample.before.size == sample.after.size == (80, 64)
        for image, true in ((sample.before, blobs(seed)), (sample.after, blobs(seed + 100))):
            wanted = np.asarray(true.resize((80, 64), Image.Resampling.BICUBIC), dtype=float)
            assert abs(np.asarray(image) - wanted).mean() < 8
            other = np.asarray(blobs(999).resize((80, 64)), dtype=float)
            assert abs(np.asarray(image) - other).mean() > 30
        assert len(preparer(sample, np.random.default_rng(0)).pixels) == 1


def test_pairs_that_cannot_be_used_are_set_aside(folder: Path, tmp_path: Path) -> None:
    (folder / "0000000" / "11_1.jpg").unlink()
    (folder / "0000000" / "12_0.jpg").write_text("no image")
    (folder / "0000001" / "prompt.json").write_text('{"input": "a"}')
    (folder / "0000002" / "prompt.json").write_text('{"input": "a", "edit": " "}')
    output = make_set(folder, tmp_path / "set")
    reasons = [
        (rejection["key"], rejection["step"], rejection["reason"])
        for path in sorted((output.directory / "set-aside").iterdir())
        for rejection in map(json.loads, path.read_text().splitlines())
    ]
    assert reasons == [
        ("0000000/11", "read", "unreadable"),
        ("0000000/12", "read", "image"),
        ("0000001/7", "read", "metadata"),
        ("0000002/3", "read", "metadata"),
        ("0000002/4", "read", "metadata"),
    ]


@pytest.mark.parametrize("text", ["[", '{"input": 3, "edit": "a"}', "[1]", "[" * 100_000])
def test_prompts_that_are_none(folder: Path, tmp_path: Path, text: str) -> None:
    (folder / "0000001" / "prompt.json").write_text(text)
    output = make_set(folder, tmp_path / "set", per_shard=5)
    (summary,) = output.summaries()
    assert summary["steps"][0]["set_aside"] == {"metadata": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "seeds.json cannot be read"),
        ("{", "is not JSON"),
        ("{}", "no list of folders and seeds"),
        ("[]", "nothing in"),
        ('["0000000"]', "wanted a folder and its seeds, found '0000000'"),
        ('[["../secret", ["1"]]]', "wanted a folder and its seeds"),
        ('[["0000000", ["../../secret"]]]', "wanted a folder and its seeds"),
        ('[["..", ["1"]]]', "wanted a folder and its seeds"),
    ],
)
def test_lists_of_seeds_that_are_none(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "seeds.json").write_text(content)
    with pytest.raises(CurationError, match=message):
        open_edits(tmp_path, 2)

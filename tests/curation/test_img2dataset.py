"""What img2dataset writes as samples of captions."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.curation.options import CaptionOptions
from kosmosg.curation.output import OutputFolder
from kosmosg.curation.pipelines import make_captions
from kosmosg.curation.sources import open_images
from kosmosg.data.preprocessing import PromptPreparer
from kosmosg.data.schema import CaptionRules, CaptionSample
from kosmosg.data.shards import open_shards
from kosmosg.errors import CurationError, WeightsError
from kosmosg.prompts.prompt import parse_text
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from tests.curation.test_openimages import make
from tests.data.test_shards import write_tar

SIDE = 40  # smallest


def jpeg(seed: int, size: tuple[int, int] = (50, 44)) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="JPEG")
    return buffer.getvalue()


def sample(number: int, **changes: Any) -> dict[str, bytes]:
    """The files of one sample, as img2dataset writes them; None leaves one out."""
    metadata = {
        "caption": f"a dog {number}",
        "url": f"https://host/{number}.jpg",
        "key": f"{number:09d}",
        "status": "success",
        "error_message": None,
        "width": 50,
        "height": 44,
        "original_width": 500,
        "exif": "{}",
    }
    metadata |= changes.pop("metadata", {})
    files = {"jpg": jpeg(number), "txt": f"a dog {number}".encode()}
    files |= {"json": json.dumps(metadata).encode()} | changes
    return {name: data for name, data in files.items() if data is not None}


def write_tars(folder: Path, *samples: dict[str, bytes]) -> Path:
    folder.mkdir()
    files = [
        (f"{number:09d}.{name}", data)
        for number, each in enumerate(samples)
        for name, data in each.items()
    ]
    write_tar(folder / "00000.tar", files)
    (folder / "00000.parquet").touch()
    (folder / "00000_stats.json").touch()
    return folder


def write_files(folder: Path, *samples: dict[str, bytes]) -> Path:
    for number, each in enumerate(samples):
        (folder / f"{number % 2:05d}").mkdir(parents=True, exist_ok=True)
        for name, data in each.items():
            (folder / f"{number % 2:05d}" / f"{number:09d}.{name}").write_bytes(data)
    return folder


def make_set(folder: Path, tokenizer: Path, directory: Path, **limits: Any) -> OutputFolder:
    options = CaptionOptions(tokenizer=tokenizer, min_side=SIDE, **limits)
    pipeline = make_captions(folder, options, per_shard=3)
    return make(pipeline, directory, 3)


def read(directory: Path) -> list[CaptionSample]:
    samples = []
    for shard in open_shards(directory, CaptionRules(min_side=SIDE)):
        for entry in shard.scan().entries:
            each = shard.read(entry, np.random.default_rng(0))
            assert isinstance(each, CaptionSample)
            samples.append(each)
    return samples


@pytest.fixture(scope="module")
def tokenizer(tiny_weights: Path) -> Path:
    return tiny_weights / "tokenizer"


@pytest.mark.parametrize("write", [write_tars, write_files])
def test_both_layouts(write: Any, tokenizer: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", *(sample(number) for number in range(4)))
    output = make_set(folder, tokenizer, tmp_path / "set")
    assert [summary["samples"] for summary in output.summaries()] == [3, 1]
    samples = sorted(read(output.directory), key=lambda each: each.caption)
    assert [each.caption for each in samples] == [f"a dog {n}" for n in range(4)]
    preparer = PromptPreparer(
        tokenizer=KosmosGTokenizer.from_pretrained(tokenizer),
        image_slots=8,
        image_size=56,
        target_size=64,
    )
    for number, each in enumerate(samples):
        true = Image.open(io.BytesIO(jpeg(number)))
        assert np.array_equal(np.asarray(each.image), np.asarray(true))  # the file itself
        assert preparer(each, np.random.default_rng(0)).target is not None


def test_files_of_a_sample_that_are_not_neighbours(tokenizer: Path, tmp_path: Path) -> None:
    """As a packer leaves them that sorts by suffix; and keys have dots."""
    files = [
        (f"v1.{number}.x.{name}", data)
        for number in range(4)
        for name, data in sample(number).items()
    ]
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "0.tar", sorted(files, key=lambda file: file[0].split(".")[-1]))
    output = make_set(tmp_path / "in", tokenizer, tmp_path / "set")
    assert [each.caption for each in read(output.directory)] == [f"a dog {n}" for n in range(4)]


def test_suffixes_of_phones_and_browsers(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, suffix in enumerate(("jpg", "JPEG", "jfif", "jxl")):
        for name, data in sample(number).items():
            name = suffix if name == "jpg" else name
            (tmp_path / "in" / f"image-{number}.{name}").write_bytes(data)
    output = make_set(tmp_path / "in", tokenizer, tmp_path / "set")
    assert [each.caption for each in read(output.directory)] == [f"a dog {n}" for n in range(3)]
    assert [summary["steps"][0]["set_aside"] for summary in output.summaries()] == [
        *({}, {"image-format": 1}),
    ]


def test_a_sample_says_where_it_is_from(tokenizer: Path, tmp_path: Path) -> None:
    samples = [sample(0), sample(1, metadata={"url": None})]
    output = make_set(write_tars(tmp_path / "in", *samples), tokenizer, tmp_path / "set")
    content = (output.directory / "000000.tar").read_bytes()
    assert b'"source": "https://host/0.jpg"' in content
    assert b'"source": "00000.tar, sample 1"' in content


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metadata": {"width": "fifty"}}, "size-not-a-number"),
        ({"metadata": {"height": -44}}, "size-not-a-number"),
        ({"metadata": {"height": 44.5}}, "size-not-a-number"),
        ({"metadata": {"height": True}}, "size-not-a-number"),
        ({"metadata": {"height": 39}}, "too-small"),
        ({"jpg": jpeg(0, (50, 39))}, "too-small"),  # whatever the JSON says
        ({"jpg": b"no image"}, "image"),
        ({"jpg": None}, "missing-part"),
        ({"jpg": None, "jxl": b""}, "image-format"),
        ({"jpg": jpeg(0, (50, 39)), "metadata": {"height": None}}, "too-small"),
        ({"json": None}, "metadata"),
        ({"json": b"{"}, "metadata"),
        ({"json": b"[]"}, "metadata"),
        ({"txt": b"\xff"}, "encoding"),
        ({"txt": b" \n"}, "no-caption"),
        ({"txt": None, "metadata": {"caption": None}}, "no-caption"),
        ({"txt": b"dog " * 200}, "caption-too-long"),
        ({"txt": None, "metadata": {"caption": "\ud800"}}, "encoding"),
    ],
)
def test_what_training_would_not_take(
    changes: dict[str, Any], reason: str, tokenizer: Path, tmp_path: Path
) -> None:
    folder = write_tars(tmp_path / "in", sample(0, **changes), sample(1))
    output = make_set(folder, tokenizer, tmp_path / "set")
    (summary,) = output.summaries()
    assert summary["steps"][0]["set_aside"] == {reason: 1}
    assert [each.caption for each in read(output.directory)] == ["a dog 1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"width": "50", "height": "44"}},
        {"metadata": {"width": None, "height": None}},
        {"metadata": {"width": math.nan, "height": ""}},
        {"jpg": None, "jfif": jpeg(0)},
        {"txt": None},
        {"txt": b" a dog\n0 "},
        {"metadata": {"height": SIDE}, "jpg": jpeg(0, (50, SIDE))},
    ],
)
def test_what_training_takes(changes: dict[str, Any], tokenizer: Path, tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "in", sample(0, **changes))
    output = make_set(folder, tokenizer, tmp_path / "set")
    assert [each.caption for each in read(output.directory)] == ["a dog 0"]


def test_the_longest_caption(tokenizer: Path, tmp_path: Path) -> None:
    """As many tokens as the readers of training take, and not one more."""
    assert (
        len(KosmosGTokenizer.from_pretrained(tokenizer).tokenize_prompt(parse_text("dog"), 0).ids)
        == 2
    )
    samples = [sample(0, txt=b"dog " * 128), sample(1, txt=b"dog " * 129)]
    output = make_set(write_tars(tmp_path / "in", *samples), tokenizer, tmp_path / "set")
    assert [len(each.caption.split()) for each in read(output.directory)] == [128]


def test_folders_that_are_none(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(CurationError, match="is not there"):
        open_images(tmp_path / "none", 3)
    with pytest.raises(CurationError, match="nothing in"):
        open_images(tmp_path, 3)
    with pytest.raises(WeightsError, match="tokenizer lacks"):
        make_captions(tmp_path, CaptionOptions(tokenizer=tmp_path), per_shard=3)

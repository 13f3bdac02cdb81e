"""The authors' layout: the three sets, the index, and every kind of damage."""

import base64
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    CompositionalSample,
    EditSample,
    StoredPicture,
    open_picture,
)
from kosmosg.data.skipping import BadSample
from kosmosg.data.tsv import (
    LINE_INDEX_SUFFIX,
    TsvShard,
    open_tsv,
    parse_caption,
    parse_compositional,
    parse_edit,
    write_line_index,
)
from kosmosg.errors import DataError

RULES = CaptionRules(min_side=8)
TEXT_ONLY = CaptionRules(text_only=True)


def shade(image: Image.Image | StoredPicture | None) -> int:
    assert image is not None
    return np.asarray(open_picture(image))[0, 0, 0]


def image(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue())


def caption(*, text=b"a dog", picture=None, width=b"8", height=b"8") -> list[bytes]:
    return [b"unused", text, image(1) if picture is None else picture, width, height]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def write_set(directory: Path, folder: str, files: dict[str, list[list[bytes]]], index=None):
    (directory / "json").mkdir(parents=True)
    (directory / folder).mkdir(exist_ok=True)
    for name, rows in files.items():
        lines = b"".join(b"\t".join(row) + b"\n" for row in rows)
        (directory / folder / name).write_bytes(lines)
    index = index or [{"source": list(files), "weight": 1, "source_lang": "x", "name": "y"}]
    (directory / "json" / "train.json").write_text(json.dumps(index))
    return directory


def read_all(shard) -> list:
    results = []
    for entry in shard.scan().entries:
        try:
            results.append(shard.read(entry, rng()))
        except BadSample as fault:
            results.append(fault.reason)
    return results


def test_captions_lie_in_the_folder_itself(tmp_path: Path):
    write_set(tmp_path, ".", {"0.tsv": [caption(), caption(text="Größe".encode())]})
    ((shard,),) = [group.shards for group in open_tsv(tmp_path, "captions", RULES)]
    first, second = read_all(shard)
    assert (first.caption, shade(first.image)) == ("a dog", 1)
    assert second.caption == "Größe"


@pytest.mark.parametrize(
    ("kind", "row", "wanted"),
    [
        ("instructpix2pix", [b"a dog", b"a hat", image(1), image(2)], EditSample),
        ("openimages", [b"a dog", b"dog", image(1), image(2), image(3)], CompositionalSample),
    ],
)
def test_the_other_sets_lie_in_data(tmp_path: Path, kind, row: list[bytes], wanted: type):
    write_set(tmp_path, "data", {"0.tsv": [row], "1.tsv": [row, row]})
    ((first, second),) = [group.shards for group in open_tsv(tmp_path, kind)]
    assert [type(sample) for sample in read_all(first) + read_all(second)] == [wanted] * 3


def test_groups_have_weights_or_counts(tmp_path: Path):
    index = [
        {"source": ["a.tsv", "b.tsv"], "weight": 2.5},
        {"source": ["c.tsv"], "count": 100},
        {"source": ["d.tsv"], "weight": 0},
    ]
    write_set(tmp_path, ".", {}, index)
    groups = open_tsv(tmp_path, "captions")
    assert [group.weight for group in groups] == [2.5, 100.0, 0.0]
    assert [[shard.name for shard in group.shards] for group in groups] == [
        *(["a.tsv", "b.tsv"], ["c.tsv"], ["d.tsv"]),
    ]


@pytest.mark.parametrize(
    "index",
    [
        *("{", "[]", "{}", '["0.tsv"]', '[{"source": [], "weight": 1}]'),
        *('[{"source": "0.tsv", "weight": 1}]', '[{"source": ["0.tsv"]}]'),
        *('[{"source": [1], "weight": 1}]', '[{"source": ["0.tsv"], "weight": -1}]'),
        *('[{"source": ["0.tsv"], "weight": "2"}]', '[{"source": ["0.tsv"], "weight": NaN}]'),
        None,
    ],
)
def test_an_index_that_cannot_be_used_is_an_error(tmp_path: Path, index: str | None):
    if index is not None:
        (tmp_path / "json").mkdir()
        (tmp_path / "json" / "train.json").write_text(index)
    with pytest.raises(DataError, match=r"train\.json"):
        open_tsv(tmp_path, "captions")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (caption()[:4], "columns"),
        ([*caption(), b"more"], "columns"),
        ([b""], "columns"),
        (caption(width=b"wide"), "size-not-a-number"),
        (caption(height=b""), "size-not-a-number"),
        (caption(height=b"-8"), "size-not-a-number"),
        (caption(height=b"8.0"), "size-not-a-number"),
        (caption(height="٨".encode()), "size-not-a-number"),
        (caption(height=b"9" * 5000), "size-not-a-number"),
        (caption(width=b"7"), "too-small"),
        (caption(height=b"7"), "too-small"),
        (caption(text=b"\xff\xfe"), "encoding"),
        (caption(picture=b"?"), "base64"),
        (caption(picture=image(1)[:-1]), "base64"),
        (caption(picture=b""), "image"),
        (caption(picture=image(1)[:40]), "image"),
        (caption(picture=base64.b64encode(b"text")), "image"),
    ],
)
def test_a_damaged_caption_has_its_reason(row: list[bytes], reason: str):
    with pytest.raises(BadSample) as error:
        parse_caption(row, rng(), rules=RULES)
    assert error.value.reason == reason


def test_stage_2_reads_text_alone():
    sample = parse_caption(caption(picture=b"?", width=b"1"), rng(), rules=TEXT_ONLY)
    assert sample == CaptionSample(caption="a dog", image=None)
    with pytest.raises(BadSample, match="size-not-a-number"):
        parse_caption(caption(width=b"wide"), rng(), rules=TEXT_ONLY)


def test_one_pair_is_chosen_evenly():
    row = [b"a dog", b"a hat"] + [image(value) for value in range(6)]
    generator = rng()
    samples = [parse_edit(row, generator) for _ in range(600)]
    assert all(isinstance(sample, EditSample) for sample in samples)
    pairs = [(shade(sample.before), shade(sample.after)) for sample in samples]  # type: ignore
    assert set(pairs) == {(0, 1), (2, 3), (4, 5)}
    assert all(150 < pairs.count(pair) < 250 for pair in set(pairs))


@pytest.mark.parametrize("images", [0, 1, 3])
def test_an_edit_needs_pairs(images: int):
    row = [b"a dog", b"a hat"] + [image(1)] * images
    for columns in (row, row[:1]):
        with pytest.raises(BadSample, match="columns"):
            parse_edit(columns, rng())


def test_only_what_the_caption_names_is_opened():
    pairs = [image(3), image(4), b"?", b"?", image(5), image(6)]
    row = [b"a cat and a man's dog", b"dog, red ,Cat", image(1), *pairs]
    sample = parse_compositional(row, rng())
    assert isinstance(sample, CompositionalSample)
    assert shade(sample.target) == 1
    found = [
        (entity.span, shade(entity.crop), shade(entity.masked_crop)) for entity in sample.entities
    ]
    assert found == [((2, 5), 5, 6), ((18, 21), 3, 4)]


def test_a_damaged_crop_is_found_when_it_is_opened():
    sample = parse_compositional([b"a dog", b"dog", image(1), image(2)[:40], image(3)], rng())
    assert isinstance(sample, CompositionalSample)
    assert shade(sample.entities[0].masked_crop) == 3
    with pytest.raises(BadSample, match="image: crop is "):
        open_picture(sample.entities[0].crop)


@pytest.mark.parametrize("tags", [b"", b"cat", b"dog,dog", b"red"])
def test_without_entities_a_caption_remains(tags: bytes):
    row = [b"a dog", tags, image(1)] + [b"?"] * (2 * len(tags.split(b",")) if tags else 0)
    sample = parse_compositional(row, rng())
    assert isinstance(sample, CaptionSample)
    assert (sample.caption, shade(sample.image)) == ("a dog", 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([b"a dog", b"dog"], "columns"),
        ([b"a dog", b"dog", image(1)], "columns"),
        ([b"a dog", b"dog", image(1), image(2)], "columns"),
        ([b"a dog", b"dog", image(1)] + [image(2)] * 4, "columns"),
        ([b"a dog", b"", image(1), image(2), image(3)], "columns"),
        ([b"a dog", b"\xff", image(1), image(2), image(3)], "encoding"),
        ([b"a dog", b"dog", b"?", image(2), image(3)], "base64"),
        ([b"a dog", b"dog", image(1), image(2), b"?"], "base64"),
        ([b"a dog", b"dog", image(1)[:40], image(2), image(3)], "image"),
    ],
)
def test_a_damaged_composition_has_its_reason(row: list[bytes], reason: str):
    with pytest.raises(BadSample) as error:
        parse_compositional(row, rng())
    assert error.value.reason == reason


def caption_shard(path: Path) -> TsvShard:
    write_set(path.parent, ".", {path.name: [caption(text=b"%d" % n) for n in range(5)]})
    ((shard,),) = [group.shards for group in open_tsv(path.parent, "captions", RULES)]
    assert isinstance(shard, TsvShard)
    return shard


def test_one_bad_line_leaves_the_others(tmp_path: Path):
    shard = caption_shard(tmp_path / "0.tsv")
    lines = shard.path.read_bytes().split(b"\n")
    # An empty line, a line of another system, and an end in the middle of an image.
    damaged = [lines[0], b"", lines[1] + b"\r", b"\t\t\t", lines[2], lines[3][:80]]
    shard.path.write_bytes(b"\n".join(damaged))
    assert [getattr(result, "caption", result) for result in read_all(shard)] == [
        *("0", "columns", "1", "columns", "2", "columns"),
    ]


def test_files_that_are_missing_or_empty_are_reported(tmp_path: Path):
    shard = caption_shard(tmp_path / "0.tsv")
    (*_, entry) = shard.scan().entries
    shard.path.write_bytes(b"")
    with pytest.raises(BadSample, match="unreadable"):
        shard.read(entry, rng())
    assert [fault.reason for fault in shard.scan().damage] == ["broken-shard"]
    shard.path.unlink()
    with pytest.raises(BadSample, match="unreadable"):
        shard.read(entry, rng())
    assert [fault.reason for fault in shard.scan().damage] == ["broken-shard"]


@pytest.mark.parametrize("newline_at_end", [True, False])
def test_an_index_of_lines_says_the_same(tmp_path: Path, newline_at_end: bool):
    shard = caption_shard(tmp_path / "0.tsv")
    if not newline_at_end:
        shard.path.write_bytes(shard.path.read_bytes().rstrip(b"\n"))
    found = shard.scan().entries
    index = write_line_index(shard.path)
    assert index.name == "0.lineidx"
    assert shard.scan().entries == found
    # It is the index that is read: leave out a line that does not show at the end.
    starts = index.read_text().split()
    index.write_text("\n".join(starts[:1] + starts[2:]))
    assert len(shard.scan().entries) == 4


@pytest.mark.parametrize("content", ["", "x", "5\n", "0\n5\n3\n", "0\n", "0\n999999\n", "0\n-4\n"])
def test_an_index_of_lines_that_does_not_fit_is_not_used(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
):
    shard = caption_shard(tmp_path / "0.tsv")
    found = shard.scan().entries
    shard.path.with_suffix(LINE_INDEX_SUFFIX).write_text(content)
    with caplog.at_level(logging.WARNING):
        assert shard.scan().entries == found
    assert "does not fit" in caplog.text

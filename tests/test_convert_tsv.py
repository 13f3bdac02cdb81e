"""The authors' data sets as shards: what is read is what stood there, and nothing is swallowed."""

import base64
import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    CompositionalSample,
    EditSample,
    EncodedImage,
    Sample,
    decode_image,
)
from kosmosg.data.shards import open_shards
from kosmosg.errors import DataError
from scripts.convert_tsv import PARSERS, convert
from tests.conftest import ROOT

Row = list[bytes]


def shade(image: Image.Image | EncodedImage | None) -> int:
    assert image is not None
    return np.asarray(decode_image(image))[0, 0, 0]


def image(value: int, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, format=image_format)
    return base64.b64encode(buffer.getvalue())


def caption(text: bytes = b"a dog", file: bytes | None = None) -> Row:
    return [b"unused", text, image(1) if file is None else file, b"8", b"8"]


EDIT = [b"a dog", b"a hat", *(image(value) for value in range(4))]
NAMED = [b"a cat and a man's dog", b"dog, red ,Cat", image(1), image(3), image(4)]
NAMED += [b"?", b"?", image(5), image(6)]  # of red, which is a colour and not looked at


def write_set(folder: Path, where: str, files: dict[str, list[Row]], index: Any = None) -> Path:
    (folder / "json").mkdir(parents=True)
    (folder / where).mkdir(exist_ok=True)
    for name, rows in files.items():
        lines = b"".join(b"\t".join(row) + b"\n" for row in rows)
        (folder / where / name).write_bytes(lines)
    index = index or [{"source": list(files), "weight": 1, "source_lang": "x", "name": "y"}]
    (folder / "json" / "train.json").write_text(json.dumps(index))
    return folder


def read_all(folder: Path) -> list[Sample]:
    shards = open_shards(folder, CaptionRules(min_side=8))
    generator = np.random.default_rng(0)
    return [shard.read(entry, generator) for shard in shards for entry in shard.scan().entries]


def test_captions_lie_in_the_folder_itself(tmp_path: Path) -> None:
    rows = [caption(), caption("Größe".encode(), image(2, "JPEG"))]
    folder = write_set(tmp_path / "set", ".", {"0.tsv": rows})
    assert convert("captions", folder, tmp_path / "shards") == [f"{tmp_path / 'shards'}:1"]
    first, second = read_all(tmp_path / "shards")
    assert isinstance(first, CaptionSample) and isinstance(second, CaptionSample)
    assert (first.caption, shade(first.image)) == ("a dog", 1)
    assert (second.caption, shade(second.image)) == ("Größe", 2)
    # As they were, byte for byte.
    content = (tmp_path / "shards" / "000000.tar").read_bytes()
    assert all(base64.b64decode(row[2]) in content for row in rows)


def test_an_edit_with_several_pairs_becomes_several_samples(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", "data", {"0.tsv": [EDIT], "1.tsv": [EDIT]})
    convert("instructpix2pix", folder, tmp_path / "shards")
    pairs = []
    for sample in read_all(tmp_path / "shards"):
        assert isinstance(sample, EditSample)
        assert (sample.caption, sample.instruction) == ("a dog", "a hat")
        pairs.append((shade(sample.before), shade(sample.after)))
    assert pairs == [(0, 1), (2, 3)] * 2


def test_only_what_the_caption_names_is_taken(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", "data", {"0.tsv": [NAMED]})
    convert("openimages", folder, tmp_path / "shards")
    (sample,) = read_all(tmp_path / "shards")
    assert isinstance(sample, CompositionalSample)
    assert shade(sample.target) == 1
    found = [(each.span, shade(each.crop), shade(each.masked_crop)) for each in sample.entities]
    assert found == [((2, 5), 5, 6), ((18, 21), 3, 4)]


@pytest.mark.parametrize("tags", [b"", b"cat", b"dog,dog", b"red"])
def test_without_entities_a_caption_remains(tmp_path: Path, tags: bytes) -> None:
    row = [b"a dog", tags, image(1)] + [b"?"] * (2 * len(tags.split(b",")) if tags else 0)
    convert("openimages", write_set(tmp_path / "set", "data", {"0.tsv": [row]}), tmp_path / "out")
    (sample,) = read_all(tmp_path / "out")
    assert isinstance(sample, CaptionSample)
    assert (sample.caption, shade(sample.image)) == ("a dog", 1)


def test_groups_become_folders_with_weights(tmp_path: Path) -> None:
    index = [
        {"source": ["a.tsv", "b.tsv"], "weight": 2.5},
        {"source": ["c.tsv"], "weight": 0},
        {"source": ["d.tsv"], "count": 100},
    ]
    files = {f"{name}.tsv": [caption(name.encode())] for name in "abd"}  # c is not needed
    folder, out = write_set(tmp_path / "set", ".", files, index), tmp_path / "out"
    assert convert("captions", folder, out) == [f"{out / '0'}:2.5", f"{out / '1'}:100"]
    found = [[getattr(sample, "caption", "") for sample in read_all(out / n)] for n in "01"]
    assert found == [["a", "b"], ["d"]]


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("captions", caption()[:4], "metadata"),
        ("captions", [*caption(), b"more"], "metadata"),
        ("captions", [b""], "metadata"),
        ("captions", caption(b"\xff\xfe"), "encoding"),
        ("captions", caption(file=b"?"), "image"),
        ("captions", caption(file=image(1)[:-1]), "image"),
        ("captions", caption(file=b""), "image"),
        ("captions", caption(file=base64.b64encode(b"text")), "image"),
        ("instructpix2pix", EDIT[:2], "metadata"),
        ("instructpix2pix", EDIT[:3], "metadata"),
        ("instructpix2pix", EDIT[:5], "metadata"),
        ("openimages", NAMED[:2], "metadata"),
        ("openimages", NAMED[:-1], "metadata"),
        ("openimages", [b"a dog", b"", image(1), image(2), image(3)], "metadata"),
        ("openimages", [b"a dog", b"\xff", image(1), image(2), image(3)], "encoding"),
        ("openimages", [b"a dog", b"dog", image(1), image(2), b"?"], "image"),
    ],
)
def test_a_damaged_line_has_its_reason(kind: str, row: Row, reason: str) -> None:
    with pytest.raises(BadSample) as error:
        PARSERS[kind](row)
    assert error.value.reason == reason


def test_damaged_lines_are_told_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty line, a line of another system, and an end in the middle of an image."""
    rows = [caption(b"%d" % number) for number in range(4)]
    folder = write_set(tmp_path / "set", ".", {"0.tsv": rows})
    lines = (folder / "0.tsv").read_bytes().split(b"\n")
    damaged = [lines[0], b"", lines[1] + b"\r", b"\t\t\t", lines[2], lines[3][:80]]
    (folder / "0.tsv").write_bytes(b"\n".join(damaged))
    with caplog.at_level(logging.WARNING):
        convert("captions", folder, tmp_path / "out")
    assert [getattr(each, "caption", "") for each in read_all(tmp_path / "out")] == ["0", "1", "2"]
    assert "skipped 1 for metadata, the last one at 0.tsv, line 2" in caplog.text


def test_too_many_damaged_lines_end_it(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", ".", {"0.tsv": [[b"a"]] * 200})
    with pytest.raises(DataError, match=r"100 of the last 100 .* cannot be used"):
        convert("captions", folder, tmp_path / "out")
    assert not [*(tmp_path / "out").glob("*.tar*")]


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
def test_an_index_that_cannot_be_used(tmp_path: Path, index: str | None) -> None:
    if index is not None:
        (tmp_path / "json").mkdir()
        (tmp_path / "json" / "train.json").write_text(index)
    with pytest.raises(DataError, match=r"train\.json"):
        convert("captions", tmp_path, tmp_path / "out")


def test_the_command_goes_on_after_a_stop(tmp_path: Path) -> None:
    """Which a file that is not there is one reason for."""
    rows = [caption()]
    folder = write_set(tmp_path / "set", ".", {"0.tsv": rows, "1.tsv": rows, "2.tsv": rows})
    (folder / "1.tsv").rename(folder / "elsewhere")
    words = ["-m", "scripts.convert_tsv", "captions", str(folder), str(tmp_path / "out")]
    stopped = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert stopped.returncode == 1
    told = stopped.stderr.strip().splitlines()[-1]
    assert told.startswith(f"error: {folder / '1.tsv'} cannot be read (No such file or directory)")
    before = (tmp_path / "out" / "000000.tar").stat().st_mtime_ns
    (folder / "elsewhere").rename(folder / "1.tsv")
    assert convert("captions", folder, tmp_path / "out") == [f"{tmp_path / 'out'}:1"]
    assert (tmp_path / "out" / "000000.tar").stat().st_mtime_ns == before
    assert len(read_all(tmp_path / "out")) == 3
    other = write_set(tmp_path / "other", ".", {"9.tsv": rows})
    with pytest.raises(DataError, match="was begun with other settings"):
        convert("captions", other, tmp_path / "out")

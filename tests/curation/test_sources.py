"""Folders and shards of images, divided into shards; and their files."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.curation.images import ReadImages
from kosmosg.curation.img2dataset import ReadCaptioned
from kosmosg.curation.records import Record, RecordSource, Rejected, Rejection
from kosmosg.curation.sources import ByteRange, Lost, open_images, read_file
from kosmosg.data.bad_samples import BadSample
from kosmosg.errors import CurationError
from tests.data.test_shards import write_tar


def keys(source: RecordSource) -> list[list[str]]:
    return [[record.key for record in listing.records()] for listing in source.listings]


def test_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b.jpeg", "c.txt", "d.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = open_images(tmp_path, 3)
    assert keys(source) == [["a/b.jpeg", "a/z.JPG", "b.png"], ["d.webp"]]
    (record,) = source.listings[1].records()
    assert record.places == {"webp": ByteRange(tmp_path / "d.webp")}


def test_files_that_are_no_images_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jpg", "a.txt", "b.txt", "c.pdf", "d.PDF", "README", "_stats.json", "e.jxl"):
        (tmp_path / name).touch()
    assert keys(open_images(tmp_path, 9)) == [["a.jpg", "e.jxl"]]
    assert "4 files are left out (2 × .pdf, 1 × no suffix, 1 × .txt)" in caplog.text
    caplog.clear()
    write_tar(tmp_path / "0.tar", [("0.jpg", b"")])
    assert keys(open_images(tmp_path, 9)) == [["0.tar, sample 0"]]
    assert "7 files are left out" in caplog.text


def test_what_is_noted_beside_an_image(tmp_path: Path) -> None:
    for name in ("a/b.c.jfif", "a/b.c.JSON", "a/b.c.txt", "a/b.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    ((record,),) = (listing.records() for listing in open_images(tmp_path, 9).listings)
    found = {kind: place[0].name for kind, place in record.places.items()}
    assert found == {"jfif": "b.c.jfif", "json": "b.c.JSON", "txt": "b.c.txt"}


def test_shards_of_images(tmp_path: Path) -> None:
    for number, count in ((0, 3), (1, 1)):
        files = [
            (f"{n}.{kind}", f"{number}{n}{kind}".encode())
            for n in range(count)
            for kind in ("jpg", "txt")
        ]
        write_tar(tmp_path / f"{number}.tar", files)
    source = open_images(tmp_path, 2)
    assert keys(source) == [
        ["0.tar, sample 0", "0.tar, sample 1"],
        ["0.tar, sample 2"],
        ["1.tar, sample 0"],
    ]
    place = source.listings[1].records()[0].places["jpg"]
    assert place.path.read_bytes()[place.offset : place.offset + place.size] == b"02jpg"


def test_archives_that_are_cut_off_or_none(tmp_path: Path) -> None:
    """What was read of them is taken, and what is lost is counted as one sample that failed."""
    write_tar(tmp_path / "0.tar", [(f"{n}.png", png(n)) for n in range(3)])
    content = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(content[: content.index(b"2.png")])
    (tmp_path / "1.tar").write_text("no archive")
    source = open_images(tmp_path, 2)
    assert [len(shard) for shard in keys(source)] == [2, 1, 1]
    records = [record for listing in source.listings for record in listing.records()]
    for step in (ReadImages(), ReadCaptioned(tokenizer=Any)):  # type: ignore[arg-type]
        lost = [each for each in step(records[2:]) if isinstance(each, Rejection)]
        assert [each.reason for each in lost] == ["broken-shard"] * 2
    assert all(isinstance(each, Record) for each in ReadImages()(records[:2]))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


def test_other_entries_make_another_source(tmp_path: Path) -> None:
    for folder, names in (("first", "ab"), ("moved", "ab"), ("other", "ac")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.jpg").touch()
    first, moved, other = (
        open_images(tmp_path / folder, 2).identity for folder in ("first", "moved", "other")
    )
    assert first == moved != other


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CurationError, match="is not there"):
        open_images(tmp_path / "none", 2)
    with pytest.raises(CurationError, match="nothing in"):
        open_images(tmp_path, 2)
    (tmp_path / "list.txt").write_text("https://host/1.jpg\n")
    with pytest.raises(CurationError, match=r"is a file\. Name a folder .* img2dataset --url_list"):
        open_images(tmp_path / "list.txt", 2)


BODY = bytes(range(256)) * 40


def test_a_file_and_a_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    assert read_file(ByteRange(tmp_path / "file")) == BODY
    assert read_file(ByteRange(tmp_path / "file", 3, 5)) == BODY[3:8]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="unreadable: No such file"):
        read_file(ByteRange(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(Rejected, match="unreadable: not a regular file"):
            read_file(ByteRange(path))
    (tmp_path / "file").write_bytes(BODY)
    with pytest.raises(BadSample, match="ends 1 bytes too early"):
        read_file(ByteRange(tmp_path / "file", len(BODY) - 4, 5))
    with pytest.raises(Rejected, match=r"unreadable: .* MB, more than"):
        read_file(ByteRange(tmp_path / "file"), largest=1000)
    with pytest.raises(Rejected, match="unreadable"):
        read_file(ByteRange(tmp_path / "file", 0, -1))
    with pytest.raises(BadSample, match="broken-shard: cut off at byte 9"):
        read_file(Lost("cut off at byte 9"))

"""Folders, lists, tables and shards of pictures, divided into portions."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.curation.images import ReadPictures
from kosmosg.curation.img2dataset import ReadDownloads
from kosmosg.curation.places import Address, Stretch
from kosmosg.curation.records import PICTURE, Draft, Rejection, Source
from kosmosg.curation.sources import open_pictures
from kosmosg.errors import CurationError
from tests.data.test_shards import write_tar

HEADER = ("ImageID", "Subset", "OriginalURL", "Title")


def keys(source: Source) -> list[list[str]]:
    return [[draft.key for draft in listing.drafts()] for listing in source.listings]


def write_list(path: Path, entries: list[str]) -> Path:
    path.write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    return path


def test_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b.jpeg", "c.txt", "d.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = open_pictures(tmp_path, 3)
    assert keys(source) == [["a/b.jpeg", "a/z.JPG", "b.png"], ["d.webp"]]
    (draft,) = source.listings[1].drafts()
    assert draft.places == {PICTURE: Stretch(tmp_path / "d.webp")}


def test_a_list_of_paths_and_addresses(tmp_path: Path) -> None:
    entries = ["a.jpg", "", "  ", "/elsewhere/b.jpg", "https://host/c.jpg", "ö d.jpg"]
    path = write_list(tmp_path / "list.txt", entries)
    source = open_pictures(path, 2)
    assert keys(source) == [["a.jpg", "/elsewhere/b.jpg"], ["https://host/c.jpg", "ö d.jpg"]]
    places = [draft.places[PICTURE] for each in source.listings for draft in each.drafts()]
    assert places == [
        Stretch(tmp_path / "a.jpg"),
        Stretch(Path("/elsewhere/b.jpg")),
        Address("https://host/c.jpg"),
        Stretch(tmp_path / "ö d.jpg"),
    ]


@pytest.mark.parametrize("ending", ["", "\n", "\n\n"])
@pytest.mark.parametrize("per_shard", [1, 2, 3, 100])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
def test_every_entry_is_in_one_portion(
    tmp_path: Path, ending: str, per_shard: int, begin: str
) -> None:
    names = [f"{'ü' * (n % 3)}{n}.jpg" for n in range(7)]
    path = tmp_path / "list.txt"
    path.write_text(begin + "\r\n".join(names) + ending, encoding="utf-8", newline="")
    portions = keys(open_pictures(path, per_shard))
    assert [key for portion in portions for key in portion] == names
    assert [len(portion) for portion in portions[:-1]] == [per_shard] * (len(portions) - 1)


def test_a_table_as_open_images_has_it(tmp_path: Path) -> None:
    """Titles hold commas, quotes, line breaks, and other things that end a line elsewhere."""
    titles = ["plain", "one, two", 'say "cheese"', "two\nlines", "odd\u2028line\x0bbreaks", "ü"]
    path = tmp_path / "images.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for number, title in enumerate(titles):
            writer.writerow((number, "train", f"https://host/{number}.jpg", title))
        writer.writerow((9, "train", "", "no address"))
    wanted = [f"https://host/{number}.jpg" for number in range(len(titles))]
    wanted.append("a row without an entry")
    for per_shard in (1, 2, 4, 10):
        portions = keys(open_pictures(path, per_shard))
        assert [key for portion in portions for key in portion] == wanted
        assert max(map(len, portions)) == min(per_shard, len(wanted))


def test_a_column_of_another_name(tmp_path: Path) -> None:
    path = tmp_path / "images.tsv"
    path.write_text("\ufeffurl\tx\nhttps://host/1.jpg\t,\n", encoding="utf-8")
    assert keys(open_pictures(path, 2, "url")) == [["https://host/1.jpg"]]
    with pytest.raises(CurationError, match=r"no column 'OriginalURL', but 'url', 'x'"):
        open_pictures(path, 2)


def test_shards_of_pictures(tmp_path: Path) -> None:
    for number, count in ((0, 3), (1, 1)):
        files = [
            (f"{n}.{kind}", f"{number}{n}{kind}".encode())
            for n in range(count)
            for kind in ("jpg", "txt")
        ]
        write_tar(tmp_path / f"{number}.tar", files)
    source = open_pictures(tmp_path, 2)
    assert keys(source) == [
        ["0.tar, sample 0", "0.tar, sample 1"],
        ["0.tar, sample 2"],
        ["1.tar, sample 0"],
    ]
    place = source.listings[1].drafts()[0].places["jpg"]
    assert place.path.read_bytes()[place.offset : place.offset + place.size] == b"02jpg"


def test_archives_that_are_cut_off_or_none(tmp_path: Path) -> None:
    """What was read of them is taken, and what is lost is counted as one sample that failed."""
    write_tar(tmp_path / "0.tar", [(f"{n}.png", png(n)) for n in range(3)])
    content = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(content[: content.index(b"2.png")])
    (tmp_path / "1.tar").write_text("no archive")
    source = open_pictures(tmp_path, 2)
    assert [len(portion) for portion in keys(source)] == [2, 1, 1]
    drafts = [draft for listing in source.listings for draft in listing.drafts()]
    for step in (ReadPictures(), ReadDownloads(tokenizer=Any)):  # type: ignore[arg-type]
        lost = [each for each in step(drafts[2:]) if isinstance(each, Rejection)]
        assert [each.reason for each in lost] == ["broken-shard"] * 2
    assert all(isinstance(each, Draft) for each in ReadPictures()(drafts[:2]))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


def test_other_entries_make_another_source(tmp_path: Path) -> None:
    first = open_pictures(write_list(tmp_path / "1.txt", ["a.jpg", "b.jpg"]), 2)
    moved = open_pictures(write_list(tmp_path / "2.txt", ["a.jpg", "b.jpg"]), 2)
    other = open_pictures(write_list(tmp_path / "3.txt", ["a.jpg", "c.jpg"]), 2)
    assert first.identity == moved.identity != other.identity
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").touch()
    one = open_pictures(tmp_path / "folder", 2).identity
    (tmp_path / "folder" / "b.jpg").touch()
    assert open_pictures(tmp_path / "folder", 2).identity != one


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CurationError, match="is not there"):
        open_pictures(tmp_path / "none", 2)
    with pytest.raises(CurationError, match="nothing in"):
        open_pictures(tmp_path, 2)
    with pytest.raises(CurationError, match="nothing in"):
        open_pictures(write_list(tmp_path / "list.txt", [""]), 2)
    (tmp_path / "latin.txt").write_bytes(b"a.jpg\n\xe4.jpg\n")
    with pytest.raises(CurationError, match="no UTF-8 text at byte 6"):
        open_pictures(tmp_path / "latin.txt", 2)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(CurationError, match="no column 'OriginalURL', but nothing"):
        open_pictures(tmp_path / "empty.csv", 2)
    (tmp_path / "quote.csv").write_text(f'OriginalURL\na.jpg\n"{"b.jpg" * 40_000}\n')
    with pytest.raises(CurationError, match=r"no table before byte \d+ \(field larger"):
        open_pictures(tmp_path / "quote.csv", 2)

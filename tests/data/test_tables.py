"""Folders of tables, in the order of shards: whole, resumed, shared out, and damaged."""

import json
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.mixture import Mixture, ReadAhead, Source
from kosmosg.data.opening import identify_data, open_data
from kosmosg.data.options import NamedData
from kosmosg.data.schema import CaptionRules, CaptionSample, SubjectSample
from kosmosg.data.tables import TableShard
from kosmosg.errors import DataError
from tests.data.fakes import NO_LIMIT, label, take
from tests.tables import captions, embedded, png, to_lines, to_parquet

RULES = CaptionRules(min_side=8)


def write(folder: Path, **files: bytes) -> Path:
    """Write files; an underscore stands for the dot in their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name.replace("_", ".", 1)).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, 25 and 12 rows in pieces of 10."""
    found = tmp_path_factory.mktemp("tables")
    return write(found, a_parquet=to_parquet(captions(25)), b_parquet=to_parquet(captions(12, 25)))


def mixture(folder: Path, rank: int = 0, world_size: int = 1, threads: int = 0) -> Mixture:
    shards = open_data(NamedData(path=folder), RULES)
    source = Source(name="tables", shards=shards, weight=1, prepare=label)
    where = {"seed": 3, "rank": rank, "world_size": world_size}
    return Mixture([source], limit=NO_LIMIT, ahead=ReadAhead(threads), **where)


def test_every_row_once_an_epoch(folder: Path) -> None:
    shards = open_data(NamedData(path=folder), RULES)
    assert [shard.name for shard in shards[:3]] == [
        *(f"a.parquet, piece {number} of 3" for number in (1, 2, 3))
    ]
    assert [len(shard.scan().entries) for shard in shards] == [10, 10, 5, 10, 2]
    found = [caption for caption, _ in take(mixture(folder), 74)]
    every = sorted(f"a {number}" for number in range(37))
    assert sorted(found[:37]) == sorted(found[37:]) == every
    assert found[:37] != found[37:] != every


def test_resumed_and_shared_out(folder: Path) -> None:
    whole = take(mixture(folder), 60)
    assert take(mixture(folder, threads=2), 60) == whole
    parts = [mixture(folder, rank, 2) for rank in (0, 1)]
    assert [next(part) for _ in range(30) for part in parts] == whole
    for stop in (0, 7, 10, 37, 44):
        stopped = mixture(folder, threads=2)
        assert take(stopped, stop) == whole[:stop]
        state = json.loads(json.dumps(stopped.state_dict()))
        resumed = mixture(folder)
        resumed.load_state_dict(state)
        assert take(resumed, 60 - stop) == whole[stop:]


def test_streams_of_a_process_share_what_they_read(folder: Path) -> None:
    shards = open_data(NamedData(path=folder), RULES)
    first, second = (shards[0].scan().entries for _ in range(2))
    assert first is second


def test_the_next_piece_is_read_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a_parquet=to_parquet(captions(30)))
    read: list[tuple[str, int]] = []
    load = TableShard._load

    def noted(shard: TableShard) -> pyarrow.Table:
        read.append((threading.current_thread().name, shard.piece[0]))
        return load(shard)

    monkeypatch.setattr(TableShard, "_load", noted)
    stream = mixture(tmp_path)
    next(stream)
    deadline = time.monotonic() + 60
    while len(read) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    here = threading.current_thread().name
    assert [name == here for name, _ in read] == [True, False]
    take(stream, 29)
    assert sorted(piece for _, piece in read) == [0, 1, 2], "and none of them twice"


def test_a_set_is_known_by_what_is_in_it(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    write(moved, a_parquet=to_parquet(captions(25)), b_parquet=to_parquet(captions(12, 25)))
    known = identify_data(NamedData(path=folder))
    assert identify_data(NamedData(path=moved)) == known
    assert identify_data(NamedData(path=moved, columns="captions")) != known
    write(moved, b_parquet=to_parquet(captions(12, 26)))
    assert identify_data(NamedData(path=moved)) != known
    texts = CaptionRules(text_only=True)
    shards = open_data(NamedData(path=moved), texts)
    assert shards[0].scan().entries[0].row() == {"caption": "a 0"}, "images are not even read"


def columns_of(data: NamedData) -> set[str]:
    (first, *_) = open_data(data, RULES)
    assert isinstance(first, TableShard)
    return set(first.columns.fields)


def test_a_mapping_in_a_file_is_known_by_what_stands_there(folder: Path, tmp_path: Path) -> None:
    """A run that goes on with other columns would mix what they hold without a word."""
    files = [tmp_path / "a.toml", tmp_path / "b.toml"]
    for file in files:
        file.write_text('[mine]\nkind = "caption"\ncaption = "caption"\n')
    first, second = (NamedData(path=folder, columns=str(file)) for file in files)
    known = identify_data(first)
    assert identify_data(second) == known
    assert columns_of(first) == {"caption"}
    files[0].write_text(files[0].read_text() + 'image = "image"\n')
    assert identify_data(first) != known
    assert columns_of(first) == {"caption", "image"}


def test_splits(tmp_path: Path) -> None:
    files = {"train-00000-of-00001": captions(3), "test-00000-of-00001": captions(2)}
    for name, rows in files.items():
        write(tmp_path / "data", **{f"{name}_parquet": to_parquet(rows)})
    for split, rows in (("train", 3), ("test", 2)):
        (shard,) = open_data(NamedData(path=tmp_path, split=split), RULES)
        assert len(shard.scan().entries) == rows
    with pytest.raises(DataError, match=r"no split 'validation'. Choose one: split=train or sp"):
        open_data(NamedData(path=tmp_path, split="validation"), RULES)


def test_lines_of_json_with_images_beside_them(tmp_path: Path) -> None:
    row = {"instruction": "a hat", "input_images": ["i/a.png"], "output_image": "i/b.png"}
    lines = to_lines([row, row | {"output_image": "../b.png"}, row | {"input_images": None}])
    write(tmp_path, x_jsonl=lines)
    (tmp_path / "i").mkdir()
    for name in "ab":
        (tmp_path / "i" / f"{name}.png").write_bytes(png(1))
    (shard,) = open_data(NamedData(path=tmp_path), RULES)
    good, elsewhere, without = shard.scan().entries
    assert isinstance(shard.read(good, np.random.default_rng(0)), SubjectSample)
    for entry, reason in ((elsewhere, "metadata"), (without, "missing-part")):
        with pytest.raises(BadSample) as caught:
            shard.read(entry, np.random.default_rng(0))
        assert caught.value.reason == reason


def spoil(data: bytes) -> bytes:
    """Garble the pages of the first row group, and leave the footer as it is."""
    return data[:4] + bytes(300) + data[304:]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("a", lambda data: data[:500]),
        ("b", lambda data: data[:500]),
        ("a", lambda data: b""),
        ("b", lambda data: b"no parquet at all"),
        ("a", spoil),
        ("b", spoil),
    ],
)
def test_damaged_files_are_counted(folder: Path, tmp_path: Path, name: str, damage) -> None:
    for each in "ab":
        data = (folder / f"{each}.parquet").read_bytes()
        write(tmp_path, **{f"{each}_parquet": damage(data) if each == name else data})
    found = mixture(tmp_path)
    take(found, 60)
    assert found.skipped["tables"]["broken-shard"] >= 1
    assert found.given["tables"] == 60


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    rows = captions(8)
    rows[2]["image"], rows[3]["image"], rows[4]["caption"] = None, embedded(b"no image"), None
    write(tmp_path, a_parquet=to_parquet(rows))
    found = mixture(tmp_path)
    assert len({caption for caption, _ in islice(found, 15)}) == 5
    assert found.skipped["tables"].keys() == {"missing-part", "image", "metadata"}


def test_files_whose_columns_differ(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, a_parquet=(folder / "a.parquet").read_bytes())
    parquet.write_table(pyarrow.table({"words": ["a"]}), tmp_path / "b.parquet")
    found = mixture(tmp_path)
    take(found, 40)
    assert found.skipped["tables"] == {"broken-shard": 2}
    shard = open_data(NamedData(path=tmp_path), RULES)[-1]
    (fault,) = shard.scan().damage
    assert "image" in fault.detail or "caption" in fault.detail


def test_files_without_rows(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, a_parquet=to_parquet(captions(1)))
    empty = pyarrow.table({"image": pyarrow.array([], pyarrow.binary()), "caption": [""][:0]})
    parquet.write_table(empty, tmp_path / "b.parquet")
    found = mixture(tmp_path)
    assert [caption for caption, _ in take(found, 3)] == ["a 0"] * 3
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(DataError, match=r"There is no sample in any of the|cannot be opened"):
        take(mixture(tmp_path), 1)


def test_what_is_no_set_of_tables(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"no shards \(\*.tar\) in .*, and no tables"):
        open_data(NamedData(path=tmp_path), RULES)
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(DataError, match="is a folder of shards, which have no columns"):
        open_data(NamedData(path=tmp_path, columns="edits"), RULES)
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "x.jsonl").write_text("{no json")
    with pytest.raises(DataError, match="cannot be opened"):
        open_data(NamedData(path=tmp_path / "lines"), RULES)


def test_a_caption_is_a_caption(folder: Path) -> None:
    shard = open_data(NamedData(path=folder), CaptionRules(text_only=True))[0]
    sample = shard.read(shard.scan().entries[4], np.random.default_rng(0))
    assert sample == CaptionSample(caption="a 4", image=None)

"""A shard is looked through once, until it is another one."""

import os
from collections import OrderedDict
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from kosmosg.data import scans, shards
from kosmosg.data.scans import KEPT, scan_once
from kosmosg.data.schema import CaptionSample, Scan
from kosmosg.data.shard_writer import write_shards
from kosmosg.data.skipping import BadSample


def counted(looks: list[str], damage: tuple[BadSample, ...] = ()):
    def look(path: Path) -> Scan:
        looks.append(path.name)
        return Scan(entries=[len(looks)], damage=damage)

    return look


def test_a_file_that_changes_is_looked_through_again(tmp_path: Path) -> None:
    looks: list[str] = []
    look, file, index = counted(looks), tmp_path / "a.tsv", tmp_path / "a.lineidx"
    file.write_text("x")
    for _ in range(3):
        assert scan_once(look, file, index).entries == [1]
    file.write_text("xy")
    assert scan_once(look, file, index).entries == [2]
    index.write_text("0")
    assert scan_once(look, file, index).entries == [3]
    os.utime(file, ns=(5, 5))
    assert scan_once(look, file, index).entries == [4]
    assert scan_once(counted(looks), file, index).entries == [5]  # by another way of looking


def test_damage_may_be_gone_the_next_time(tmp_path: Path) -> None:
    looks: list[str] = []
    look = counted(looks, damage=(BadSample("broken-shard", "no answer"),))
    for _ in range(2):
        scan_once(look, tmp_path / "nowhere")
    assert len(looks) == 2


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    looks: list[str] = []
    look = counted(looks)
    for number in (*range(KEPT), 0, KEPT, 0, 1):  # 1 goes for the last one, as 0 was asked for
        scan_once(look, tmp_path / str(number))
    assert looks == [*map(str, range(KEPT + 1)), "1"]
    assert len(scans._scans) == KEPT


def test_a_thread_may_push_out_what_another_one_has_just_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    look, others = counted(looks), []

    class Slow(OrderedDict):
        """Between finding an entry and using it, another thread fills all places."""

        def get(self, key: Any, default: Any = None) -> Any:
            found = super().get(key, default)
            if found is not None and not others:
                others.append(Thread(target=fill))
                others[0].start()
                others[0].join(0.5)
            return found

    def fill() -> None:
        for number in range(1, KEPT + 1):
            scan_once(look, tmp_path / str(number))

    monkeypatch.setattr(scans, "_scans", Slow())
    first = scan_once(look, tmp_path / "0")
    assert scan_once(look, tmp_path / "0") is first
    others[0].join()
    assert len(scans._scans) == KEPT


def test_walks_share_what_they_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    members = shards._members
    monkeypatch.setattr(
        shards, "_members", lambda path, note: opened.append(path.name) or members(path, note)
    )
    picture = Image.new("RGB", (8, 8))
    write_shards([CaptionSample(caption=each, image=picture) for each in "abc"], tmp_path / "a")
    for _ in range(5):
        (shard,) = shards.open_shards(tmp_path / "a")
        assert len(shard.scan().entries) == 3
    assert opened == [shard.name]

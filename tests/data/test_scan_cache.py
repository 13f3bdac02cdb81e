"""Headers of archives are read once, by one process for all."""

import os
import subprocess
import sys
import tarfile
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kosmosg.data import shards
from kosmosg.data.scan_cache import WORTH_KEEPING, cache_folder
from kosmosg.data.shards import scan_archive

COUNT = WORTH_KEEPING // 1024  # a header and a block for each file
# Counts how often an archive is opened while a process walks past all of its samples.
WALK = """
import sys
from pathlib import Path
from kosmosg.data.shards import TarShard
from kosmosg.data.shuffling import ShardWalk

opened = []
sys.addaudithook(lambda event, what: opened.append(what[0]) if event == "open" else None)
path = Path(sys.argv[1])
walk = ShardWalk("a", [TarShard(path=path)], (0, 0))
last = [walk.advance() for _ in range(int(sys.argv[2]))][-1]
print(sum(str(each) == str(path) for each in opened), last.number, last.entry)
"""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(COUNT):
            tar.addfile(tarfile.TarInfo(f"{number:06d}.txt"))
    with path.open("ab") as file:
        file.write(bytes(WORTH_KEEPING))
    return path


def scan_anew(path: Path) -> list:
    """Scan as a process does that has just begun."""
    shards._scan_kept.cache_clear()
    scan = scan_archive(path)
    assert not scan.damage
    return list(scan.entries)


def test_one_process_reads_the_headers_for_all(archive: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WALK, str(archive), str(COUNT)]
    together = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [process.communicate(timeout=120)[0].split(maxsplit=1) for process in together]
    assert [process.returncode for process in together] == [0, 0]
    once, ends = {"0", "2"}, {place for _, place in found}  # as an archive, and to see its end
    assert {opened for opened, _ in found} == once
    assert len(ends) == 1, "all of them find the same samples"


def test_what_is_kept_is_of_the_archive_as_it_is(archive: Path) -> None:
    first = scan_anew(archive)
    assert len(first) == COUNT
    (kept,) = cache_folder().glob("*.npz")
    assert scan_anew(archive) == first
    kept.write_bytes(kept.read_bytes()[:100])
    assert scan_anew(archive) == first, "what is kept was cut off"
    with np.load(kept) as arrays:
        assert len(arrays["files"]) == COUNT
    with tarfile.open(archive, "a") as tar:
        tar.addfile(tarfile.TarInfo("another.txt"))
    assert len(scan_anew(archive)) == COUNT + 1


def test_without_a_place_to_keep_anything(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    assert len(scan_anew(archive)) == COUNT


def test_headers_are_not_held_in_memory(archive: Path) -> None:
    def most(work: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    walked = most(lambda: deque(shards._members(archive, print), maxlen=0))
    assert walked < 100 * COUNT, "bytes; tarfile alone would keep more than 300 for each file"
    assert most(lambda: scan_anew(archive)) < 500 * COUNT

"""Where the files of samples lie in archives, kept in memory and, of large archives, on the disk.

Every process of a run walks past the samples of all others, so it must know how many there are in
each archive. What one of them has found by reading all headers, the others are given, as are later
epochs and runs.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout

from kosmosg.data.schema import Scan
from kosmosg.utils.files import atomic_file

Place = tuple[int, int]  # of a file in an archive: where it begins, and its length in bytes
WORTH_KEEPING = 2**21  # bytes of an archive: looking through a smaller one takes no time
PATIENCE = 120  # seconds to wait for who is looking through the same archive
# No place to write, no locks, or none in time: it is a convenience, and goes without.
UNAVAILABLE = (OSError, Timeout, NotImplementedError, RuntimeError)


class Entries(Sequence[Mapping[str, Place]]):
    """Where the files of many samples lie, in 24 bytes for each and 8 for a sample.

    Args:
        kinds: Names of files behind the key.
        files: Kind (by its number), beginning and length of every file.
        ends: The number of files up to each sample, beginning with 0.
    """

    def __init__(self, kinds: np.ndarray, files: np.ndarray, ends: np.ndarray):
        self.arrays = {"kinds": kinds, "files": files, "ends": ends}
        self._kinds, self._files, self._ends = kinds.tolist(), files, ends

    @classmethod
    def of(cls, kinds: Sequence[str], found: Sequence[int]) -> "Entries":
        """Bring files together by samples.

        Args:
            kinds: Names of files behind the key.
            found: Four numbers for each file: sample, kind, beginning and length.
        """
        files = np.array(found, dtype=np.int64).reshape(-1, 4)
        files = files[np.argsort(files[:, 0], kind="stable")]
        ends = np.cumsum([0, *np.bincount(files[:, 0])])
        return cls(np.array(kinds, dtype=np.str_), files[:, 1:].copy(), ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: Any) -> Any:
        number = range(len(self))[place]
        files = self._files[self._ends[number] : self._ends[number + 1]].tolist()
        return {self._kinds[kind]: (offset, size) for kind, offset, size in files}


def cache_folder() -> Path:
    """Return the folder in which all runs of a user keep what they have found."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "kosmosg" / "shards"


def kept_scan(identity: Sequence[Any], scan: Callable[[], Scan]) -> Scan:
    """Take what was found in an archive from the disk, or find it and keep it.

    A damaged archive may be whole the next time, so nothing is kept of it.

    Args:
        identity: What tells the archive, as it is, from others.
        scan: Looks through it.
    """
    found = None
    with suppress(*UNAVAILABLE), _held(identity) as file:
        found = _load(file) or scan()
        entries: Any = found.entries
        if not found.damage:
            with atomic_file(file) as path, path.open("wb") as opened:
                np.savez(opened, **entries.arrays)
    return found or scan()


@contextmanager
def _held(identity: Sequence[Any]) -> Iterator[Path]:
    """Let one process at a time look through an archive, and name the file to keep it in."""
    name = hashlib.sha256(repr(identity).encode(errors="surrogateescape")).hexdigest()
    file = cache_folder() / f"{name}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock"), timeout=PATIENCE):
        yield file


def _load(file: Path) -> Scan | None:
    """Read what was kept; ``None`` if there is nothing, or it is damaged."""
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), file.open("rb") as opened:
        arrays = np.load(opened)
        return Scan(entries=Entries(arrays["kinds"], arrays["files"], arrays["ends"]))
    return None

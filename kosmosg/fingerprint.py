"""Short names for what a run depends on, to notice that a resumed one has something else."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EDGE = 64 * 1024  # bytes that are read at either end of a file: 6 GB cost nothing
DIGITS = 12


def fingerprint(path: Path) -> str:
    """Tell apart what stands in files, by their names, sizes, beginnings and ends.

    Args:
        path: A file, or a folder with all that is below it. Where it lies does not count.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_files(path)):
        size = file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(EDGE))
            opened.seek(max(EDGE, size - EDGE))
            digest.update(opened.read(EDGE))
    return _shorten(digest.hexdigest())


def fingerprint_of(values: Any) -> str:
    """Tell apart what JSON can hold, such as the sizes of a network."""
    return _shorten(hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest())


def _shorten(digest: str) -> str:
    return f"sha256:{digest[:DIGITS]}"


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield "", path
    for folder, _, names in os.walk(path, followlinks=True):
        for name in names:
            file = Path(folder, name)
            if file.is_file():  # and no link to nothing
                yield file.relative_to(path).as_posix(), file

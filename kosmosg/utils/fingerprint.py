"""Short names for what a run depends on, to notice that a resumed one has something else."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# What is read of a file, evenly strewn from its first byte to its last: 6 GB cost nothing, and what
# differs is seen wherever it lies, if it is longer than the strides (12 MB of 6 GB).
WINDOW, WINDOWS = 4096, 512
DIGITS = 12


def fingerprint(path: Path) -> str:
    """Tell apart what stands in files, by their names, their sizes and samples of their content.

    A file of up to 2 MB is read as a whole. Of weights that were trained, every tensor differs from
    what it was, so that samples tell.

    Args:
        path: A file, or a folder with all that is below it but what is hidden. Where it lies does
            not count.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_files(path)):
        size = file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with file.open("rb", buffering=0) as opened:
            for place in _places(size):
                opened.seek(place)
                digest.update(opened.read(WINDOW))
    return _shorten(digest.hexdigest())


def fingerprint_of(values: Any) -> str:
    """Tell apart what JSON can hold, such as the sizes of a network."""
    return _shorten(hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest())


def _shorten(digest: str) -> str:
    return f"sha256:{digest[:DIGITS]}"


def _places(size: int) -> Iterable[int]:
    """Say where the windows of a file begin, the last of which ends with it."""
    if size <= WINDOW * WINDOWS:
        return range(0, size, WINDOW)
    return (number * (size - WINDOW) // (WINDOWS - 1) for number in range(WINDOWS))


def _files(path: Path, name: str = "", above: tuple[Path, ...] = ()) -> Iterator[tuple[str, Path]]:
    """List what stands in a folder, by names relative to it; links are followed, but not around."""
    if path.is_file():
        yield name, path
    elif path.is_dir() and (real := path.resolve()) not in above:
        for each in path.iterdir():
            if not each.name.startswith("."):  # no lock
                yield from _files(each, f"{name}/{each.name}".lstrip("/"), (*above, real))

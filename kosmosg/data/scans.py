"""Looks through shards, each taken once: the packing streams of stage 1 all go the same way."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from kosmosg.data.schema import Scan

KEPT = 64  # shards: packing streams drift apart, and each source has one of its own
_scans: OrderedDict[Any, Scan] = OrderedDict()
_lock = Lock()  # of what is kept; threads look through different shards at the same time


def scan_once(look: Callable[[Path], Scan], path: Path, *beside: Path) -> Scan:
    """Look through a file, or take what was found there last time if it is the same.

    Args:
        look: How to; what it finds is shared, and nobody may change it.
        path: The file.
        beside: Further files that it reads.
    """
    key = (look, *((each, stamp(each)) for each in (path, *beside)))
    with _lock:
        if (scan := _scans.get(key)) is not None:
            _scans.move_to_end(key)
            return scan
    scan = look(path)
    if not scan.damage:  # which may be gone the next time
        with _lock:
            _scans[key] = scan
            if len(_scans) > KEPT:
                _scans.popitem(last=False)
    return scan


def stamp(path: Path) -> tuple[int, int] | None:
    """Return size and time of a file, or nothing if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns

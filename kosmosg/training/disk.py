"""What runs have to do with a disk: bring files onto it, and say why that failed."""

import errno
import os
from pathlib import Path


def flush(path: Path) -> None:
    """Bring a file or folder to the disk, so that a power cut finds it there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_all(folder: Path) -> None:
    """Bring a folder with all that is below it to the disk."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def reason(error: Exception) -> str:
    """Say in words why a file could not be written."""
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    return "the disk is full" if full else " ".join(str(error).split())

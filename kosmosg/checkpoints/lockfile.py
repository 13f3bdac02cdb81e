"""Holding a folder for one process; ``kosmosg.utils.files.lock_folder`` takes its place."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kosmosg.errors import KosmosGError


@contextmanager
def only_one(directory: Path, owner: str, explain: Callable[[str], KosmosGError]) -> Iterator[None]:
    """Hold a directory, which is made if need be, for this process.

    The kernel gives the lock back when the process ends, however it ends; the file that carries
    it stays, since removing it would let two others hold two different files of that name.

    Args:
        directory: What to hold.
        owner: Name of the file that carries the lock.
        explain: Makes an error of the number of the process that holds it.

    Raises:
        KosmosGError: Made by ``explain``, if another process holds it.
        OSError: If it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    carrier = os.open(directory / owner, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(carrier, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(carrier, 20, 0).decode(errors="replace").strip() or "unknown"
            raise explain(pid) from None
        os.truncate(carrier, 0)
        os.pwrite(carrier, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(carrier)

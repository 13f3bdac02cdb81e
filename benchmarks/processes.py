"""Tasks in processes of their own, the memory they take, and what the page cache holds.

A process that has done something before has memory to reuse and libraries in place: what a start
costs shows in a fresh one only.
"""

import ctypes
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import NotMeasured

ROOT = Path(__file__).resolve().parent.parent
CHUNK = 2**24  # bytes read or looked at in one go
SAMPLING = 0.02  # seconds between two looks at a process's memory


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a task did in its process.

    Attributes:
        report: What the task says.
        seconds: From the start of the process to the task's report.
        peak: Bytes in memory at most, files mapped into it included.
        anonymous: Bytes at most of what no file stands behind, which nothing but swap can give
            back.
    """

    report: dict[str, Any]
    seconds: float
    peak: int
    anonymous: int


def run_task(name: str, **arguments: Any) -> Outcome:
    """Run a task of ``benchmarks.tasks`` in a fresh process and watch its memory.

    Raises:
        NotMeasured: Where the system does not tell the memory of a process.
        RuntimeError: If the task fails; with its last words.
    """
    if not Path("/proc/self/status").is_file():
        raise NotMeasured("only Linux tells the memory of a process")
    command = [sys.executable, "-m", "benchmarks.tasks", name, json.dumps(arguments, default=str)]
    start = time.perf_counter()
    anonymous = 0
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment(arguments), **pipes) as process:
        while True:
            try:
                said, complaints = process.communicate(timeout=SAMPLING)
                break
            except subprocess.TimeoutExpired:
                anonymous = max(anonymous, read_status(process.pid, "RssAnon"))
    if process.returncode:
        raise RuntimeError(f"the task {name} failed: {complaints[-2000:]}")
    report = json.loads(said.splitlines()[-1])
    # By the task's own clock: leaving the process takes time too.
    seconds = report.pop("finished") - start
    return Outcome(report=report, seconds=seconds, peak=report.pop("peak"), anonymous=anonymous)


def environment(arguments: dict[str, Any]) -> dict[str, str]:
    """Let a task see the device it is meant for, and start without a safety checker."""
    # Tasks import this module too, and not all of them should pay for what serving imports.
    from kosmosg.serving.service import ALLOW_NO_CHECKER

    variables = {**os.environ, ALLOW_NO_CHECKER: "1"}
    if arguments.get("device") == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""
    return variables


def read_status(process: int | str, entry: str) -> int:
    """Bytes of an entry of a process's status, 0 once the process is gone.

    ``VmHWM`` is the peak. ``ru_maxrss`` is not: Linux lets a process inherit that of its parent.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    found = (line.split() for line in lines if line.startswith(f"{entry}:"))
    return next((int(words[1]) * 1024 for words in found), 0)


# ------------------------------------------------------------------ files and the page cache


def read_files(files: Iterable[Path]) -> float:
    """Read files from end to end into one buffer; the seconds it took."""
    buffer = memoryview(bytearray(CHUNK))
    start = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def drop_from_cache(files: Iterable[Path]) -> None:
    """Ask the system to forget what it holds of files.

    Raises:
        NotMeasured: If it does not.
    """
    files = list(files)
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what is not written yet cannot be forgotten
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if (share := cached_share(files)) > 0.05:
        raise NotMeasured(f"the page cache keeps {share:.0%} of the files")


def cached_share(files: Iterable[Path]) -> float:
    """Share of the pages of files that can be read without touching the disk.

    The kernel's list is read, not the files: even an attempt to read makes it fetch pages.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    cached = pages = 0
    for path in files:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            resident = np.empty(-(-len(view) // mmap.PAGESIZE), np.uint8)
            address, length = ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view))
            if libc.mincore(address, length, ctypes.c_void_p(resident.ctypes.data)):
                raise NotMeasured(
                    f"the system hides its page cache: {os.strerror(ctypes.get_errno())}"
                )
            cached, pages = cached + int((resident & 1).sum()), pages + len(resident)
            del view  # a mapping with a view on it cannot be closed
    return cached / pages

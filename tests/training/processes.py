"""Processes to kill, and groups of processes that train together.

They are forked from one that has imported everything, so that starting them costs nothing.
"""

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.training.preloaded"])
PATIENCE = 120.0  # seconds, for a machine that is busy


@contextmanager
def started(
    target: Callable[..., Any], *arguments: Any, **environment: Any
) -> Iterator[ForkServerProcess]:
    """Run a function in a process, which is gone afterwards; what it said is passed on."""
    with TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        process = _CONTEXT.Process(target=_run, args=(said, environment, target, arguments))
        process.start()
        try:
            yield process
        finally:
            process.kill()
            process.join(PATIENCE)
            if said.exists():
                sys.stderr.write(said.read_text())


def run_to_the_end(target: Callable[..., Any], *arguments: Any) -> int:
    """Run a function in a process and return how that ended."""
    with started(target, *arguments) as process:
        process.join(PATIENCE)
        assert process.exitcode is not None, "still running"
        return process.exitcode


def run_together(target: Callable[..., Any], *arguments: Any) -> list[int | None]:
    """Run a function in two processes that know of each other, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with (
        started(target, *arguments, RANK=0, LOCAL_RANK=0, **common) as first,
        started(target, *arguments, RANK=1, LOCAL_RANK=1, **common) as second,
    ):
        _wait_for((first, second))
    return [first.exitcode, second.exitcode]


def _wait_for(group: Sequence[ForkServerProcess]) -> None:
    """Wait for all; one that fails takes the others with it, as under torchrun."""
    end = time.monotonic() + PATIENCE
    while any(process.exitcode is None for process in group) and time.monotonic() < end:
        if any(process.exitcode for process in group):
            time.sleep(0.3)  # for the others to fail by themselves
            return
        time.sleep(0.01)


def _run(said: Path, environment: dict[str, Any], target: Callable[..., Any], inputs: Any) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    with said.open("w") as file, redirect_stderr(file):
        try:
            target(*inputs)
        except Exception:  # noqa: BLE001  # pytest cannot see it here
            traceback.print_exc()  # while it is still redirected
            raise SystemExit(1) from None

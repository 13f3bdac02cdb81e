"""Running out of memory for real, and not leaking it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.serving.client import SMALL, Server, encode, photo, pixels, url

UNLIMITED = (-1, -1)
LARGE = {"width": 1024, "height": 1024, "num_images": 8}
# With these weights one image of this size takes 16 MB more than a small one, four more than 40. A
# thread that the server starts meanwhile takes 8 of them: then the next limit is tried.
SPLIT = {"width": 128, "height": 128, "num_images": 4}
SPLIT_MEGABYTES = (28, 36)


@pytest.fixture(scope="module")
def narrow(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose memory is going to be limited.

    Its latents are half as wide as the images, so that the U-Net, which draws all rows at once,
    takes more memory than the VAE. What is freed goes back to the system at once, so that the
    limit means what it says. And it runs on one thread: where a thread cannot be started for lack
    of memory, OpenMP ends the process.
    """
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with Server(tiny_weights, tmp_path_factory.mktemp("narrow"), **exact, **single) as server:
        yield server


@contextmanager
def limited(worker: psutil.Process, megabytes: int) -> Iterator[None]:
    """Let a process take only so much more address space than it has now."""
    limit = worker.memory_info().vms + megabytes * 2**20
    worker.rlimit(psutil.RLIMIT_AS, (limit, -1))
    try:
        yield
    finally:
        worker.rlimit(psutil.RLIMIT_AS, UNLIMITED)


@pytest.mark.parametrize("megabytes", [8, 16, 48, 96])
def test_out_of_memory(narrow: Server, megabytes: int) -> None:
    """The caller learns what to do, and the memory of the attempt is given back.

    The limits fall on different allocators: those of torch and of oneDNN.
    """
    narrow.check_normal()
    before = narrow.worker.memory_info().rss
    with limited(narrow.worker, megabytes):
        response = narrow.post({"input": SMALL | LARGE})
    message = narrow.refused(response)
    assert "memory that is free" in message
    assert "smaller width and height" in message
    assert narrow.worker.memory_info().rss - before < 20e6


def test_out_of_memory_for_four_but_not_for_fewer(narrow: Server) -> None:
    """The request is split, the log says so, and the images are those of a single batch."""
    whole = narrow.generate(**SPLIT)
    response: dict[str, Any] = {}
    for megabytes in SPLIT_MEGABYTES:
        with limited(narrow.worker, megabytes):
            response = narrow.post({"input": SMALL | SPLIT}).json()
        if response["status"] == "succeeded":
            break
    assert response["status"] == "succeeded", response.get("error")
    counts = [int(n) for n in re.findall(r"going on with (\d) images?", response["logs"])]
    assert counts in ([2], [2, 1])
    chunks = 4 // counts[-1]
    assert response["logs"].endswith(f" {chunks}/{chunks}\n")
    assert np.abs(pixels(response).astype(int) - whole).max() <= 1
    narrow.check_normal()


# ------------------------------------------------------------------ many requests

IMAGE = url(photo())
GOOD: list[dict[str, Any]] = [
    {"prompt": "<i>", "image1": IMAGE},
    {"num_images": 3},
    {"output_format": "webp"},
    {"output_format": "jpg", "width": 128},
    {"scheduler": "PNDM"},
    {"negative_prompt": "snow", "prompt": "<i> <i>", "images": [IMAGE, url(photo(1))]},
]
BAD: list[dict[str, Any]] = [
    {"prompt": ""},
    {"prompt": "<i>"},
    {"prompt": "a dog " * 3000},
    {"width": 100},
    {"seed": -1},
    {"prompt": "<i>", "image1": "/etc/passwd"},
    {"prompt": "<i> <i>", "image1": IMAGE, "image2": url(encode(photo())[:99])},
]


def test_a_hundred_requests(server: Server) -> None:
    """Memory, open files and the temporary folder stay as they are once every kind was seen."""
    for inputs in (GOOD + BAD) * 3:
        server.post({"input": SMALL | inputs})
    worker = server.worker
    memory, descriptors = worker.memory_info().rss, worker.num_fds()
    for number in range(100):
        inputs = (GOOD + BAD)[number % len(GOOD + BAD)]
        answer = server.post({"input": SMALL | inputs}).json()
        assert (answer.get("status") == "succeeded") == (inputs in GOOD), inputs
    assert worker.memory_info().rss - memory < 20e6
    assert worker.num_fds() <= descriptors + 2
    server.check_normal()
    assert [path.name for path in server.leftovers()] == ["0-seed-1.png"]
    folders = {path.name for path in server.temporary.iterdir()}
    assert len([name for name in folders if not name.startswith("torchinductor")]) == 1

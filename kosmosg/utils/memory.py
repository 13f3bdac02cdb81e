"""Running out of memory as an error that the user can act on."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kosmosg.errors import OutOfMemoryError

# The CPU's allocator, oneDNN and the CUDA libraries say it in words only.
WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "could not create a primitive",
    "bad_alloc",
)


@contextmanager
def reporting_out_of_memory(
    subject: str, remedy: str = "a smaller width and height, or a shorter prompt"
) -> Iterator[None]:
    """Turn a failed allocation into an ``OutOfMemoryError``, with the memory given back.

    Args:
        subject: Begins the message; "fit into memory" follows.
        remedy: What to choose instead.

    Raises:
        OutOfMemoryError: Without the frames, and so the tensors, of the failed attempt.
    """
    failed = False
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = True
    # Outside of the handler: the exception, which holds every tensor of the attempt, is gone.
    if failed:
        free_memory()
        raise OutOfMemoryError(f"{subject} fit into the memory that is free. Choose {remedy}.")


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise a failed allocation on CUDA or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def free_memory() -> None:
    """Give back what the allocator keeps for reuse."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

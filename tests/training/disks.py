"""What disks do that are full."""

import errno
from typing import Any

from safetensors import SafetensorError


def no_space(*arguments: Any, **named: Any) -> None:
    """Fail as Python does."""
    raise OSError(errno.ENOSPC, "No space left on device")


def no_space_in_rust(*arguments: Any, **named: Any) -> None:
    """Fail as the library of safetensors does."""
    raise SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )

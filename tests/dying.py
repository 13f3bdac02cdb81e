"""Being killed at a chosen moment, as a machine that loses its power."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def dying(owner: Any, name: str, left: int) -> Iterator[None]:
    """Be killed when something is about to be called for the n-th time."""
    original = getattr(owner, name)

    def count_down(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, count_down)
        yield

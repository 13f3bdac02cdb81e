"""The processes of a run."""

from datetime import timedelta
from typing import Any

import pytest

from kosmosg.utils import processes


def test_processes_wait_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one of them encodes pictures."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(processes, "PartialState", lambda **named: told.update(named))
    processes.find_processes(cpu=True)
    assert told["cpu"]
    assert told["timeout"] >= timedelta(hours=2)

"""The processes of a run."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState

from kosmosg.utils import processes


def test_processes_wait_for_hours_on_one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one of them encodes images; and "cpu:0" would be another device than "cpu"."""
    told: dict[str, Any] = {}

    def several(**named: Any) -> SimpleNamespace:
        told.update(named)
        return SimpleNamespace(device=torch.device("cpu", 0), _cpu=True)

    monkeypatch.setattr(processes, "PartialState", several)
    found = processes.find_processes(cpu=True)
    assert told["cpu"]
    assert told["timeout"] >= timedelta(hours=2)
    assert found.device == torch.device("cpu") != torch.device("cpu", 0)


def test_the_device_is_that_of_whoever_asks_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands in for an accelerator."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(PartialState, "default_device", torch.device("meta"))
    PartialState._reset_state()
    try:
        for cpu in (True, False, True):
            wanted = torch.device("cpu" if cpu else "meta")
            assert processes.find_processes(cpu=cpu).device == wanted
    finally:
        PartialState._reset_state()

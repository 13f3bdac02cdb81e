"""What runs have logged."""

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

# Files of one second are told apart, and put in order, by this number: let it have the same length
# in all of them.
event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)


def read_log(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Read back the log of a run's folder: name → (step, value) in order."""
    log: Any = EventAccumulator(str(directory / "logs"), size_guidance={"scalars": 0})  # all
    log.Reload()
    return {
        name: [(event.step, event.value) for event in log.Scalars(name)]
        for name in log.Tags()["scalars"]
    }


def assert_same_losses(found: Path, wanted: Path) -> None:
    """Compare everything that two runs have logged."""
    logs = [read_log(run) for run in (found, wanted)]
    assert logs[0].keys() == logs[1].keys()
    for name in logs[1]:
        values = [[value for _, value in log[name]] for log in logs]
        assert len(values[0]) == len(values[1]) > 1
        # Norms are added up in another order, and their size is not that of a loss.
        relative = 1e-3 if name == "gradient" else 1e-5
        assert values[0] == pytest.approx(values[1], abs=1e-5, rel=relative), name

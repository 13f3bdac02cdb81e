"""Opening weights, and the server's setup, beside reading the same files."""

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measuring import Measurement, NotMeasured, interleave, not_measured
from benchmarks.processes import Outcome, drop_from_cache, read_files, run_task
from benchmarks.workbench import Workbench


def measure_opening(bench: Workbench) -> Iterator[tuple[str, Measurement]]:
    """Open in fresh processes, with the files in the page cache and without."""
    bench.release()  # the memory that pipelines hold is memory that cannot cache files
    stored = bench.stored_precision
    opening = {
        "name": "open_weights",
        "directory": bench.weights,
        "precision": stored,
        "device": bench.device.type,
    }
    setup = {"name": "set_up", "directory": bench.weights, "device": bench.device.type}

    def cold() -> None:
        drop_from_cache(bench.files)

    def warm() -> None:
        read_files(bench.files)

    outcomes, reading = measure_task(bench, warm, opening)
    yield "opening-warm", time_row(outcomes, reading, stored)
    yield "opening-memory", memory_row(bench, outcomes)
    try:
        outcomes, reading = measure_task(bench, cold, opening)
        yield "opening-cold", time_row(outcomes, reading, stored)
    except NotMeasured as error:
        yield "opening-cold", not_measured(str(error))
    outcomes, reading = measure_task(bench, warm, setup)
    yield "setup", time_row(outcomes, reading, "")
    yield "setup-memory", memory_row(bench, outcomes)


def measure_task(
    bench: Workbench, prepare: Callable[[], None], task: dict[str, Any]
) -> tuple[list[Outcome], list[float]]:
    """Run a task in turns with reading the files; the page cache is prepared for each."""

    def run() -> Outcome:
        prepare()
        return run_task(**task)

    def read() -> float:
        prepare()
        return read_files(bench.files)

    trials: dict[str, Callable[[], Any]] = {"task": run, "read": read}
    # No round to warm up: each process is fresh, and the page cache is what it is made to be.
    found = interleave(trials, bench.rounds, warm_ups=0)
    return found["task"], found["read"]


def time_row(outcomes: list[Outcome], reading: list[float], note: str) -> Measurement:
    """Seconds of a task, once everything is imported, beside those of reading."""
    return Measurement(
        values=tuple(outcome.report["seconds"] for outcome in outcomes),
        baselines=tuple(reading),
        note=note,
    )


def memory_row(bench: Workbench, outcomes: list[Outcome]) -> Measurement:
    """Peak memory of a task beside the size of the weights."""
    anonymous = max(outcome.anonymous for outcome in outcomes)
    return Measurement(
        values=tuple(outcome.peak / 1e9 for outcome in outcomes),
        baselines=(bench.size_of_files / 1e9,) * len(outcomes),
        note=f"{anonymous / 1e9:.1f} GB of it not mapped from files",
    )

"""From the start of a process to its first picture, and what that takes of the device's memory."""

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.measuring import Measurement, interleave
from benchmarks.processes import Outcome, read_files, run_task
from benchmarks.workbench import Workbench


def measure_start(bench: Workbench) -> Iterator[tuple[str, Measurement]]:
    """Start fresh processes that draw one picture, ours and plain diffusers' in turns."""
    if bench.lacks("first-picture"):
        return
    bench.release()
    read_files(bench.files)  # into the page cache
    run = partial(
        run_task,
        directory=bench.weights,
        precision=bench.fast_precision,
        device=bench.device.type,
        steps=bench.steps,
    )
    trials: dict[str, Callable[[], Outcome]] = {
        "ours": partial(run, "first_picture"),
        "plain": partial(run, "first_plain_picture"),
    }
    found = interleave(trials, bench.rounds, warm_ups=0)
    yield (
        "first-picture",
        Measurement(
            values=tuple(outcome.seconds for outcome in found["ours"]),
            baselines=tuple(outcome.seconds for outcome in found["plain"]),
            note=f"{bench.fast_precision}, {bench.steps} steps, imports included, page cache warm",
        ),
    )
    peaks = {way: [o.report["device_peak"] / 1e9 for o in found[way]] for way in trials}
    yield (
        "device-memory",
        Measurement(
            values=tuple(peaks["ours"]),
            baselines=(bench.size_of_files / 1e9,) * bench.rounds,
            note=f"plain diffusers: {max(peaks['plain']):.1f} GB",
        ),
    )

"""Converting a checkpoint beside copying the file."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measuring import Measurement, NotMeasured, interleave
from benchmarks.processes import Outcome, read_files, run_task
from benchmarks.workbench import Workbench


def measure_conversion(bench: Workbench) -> Iterator[tuple[str, Measurement]]:
    """Convert in fresh processes, in turns with copying, with the file in the page cache."""
    if bench.checkpoint is None:
        raise NotMeasured("the weights were named, and no checkpoint with them")
    bench.release()
    checkpoint = bench.checkpoint
    output, copied = bench.folder / "converted", bench.folder / "copy.pt"

    def prepare() -> None:
        shutil.rmtree(output, ignore_errors=True)
        copied.unlink(missing_ok=True)
        os.sync()
        read_files([checkpoint.file])

    def convert() -> Outcome:
        prepare()
        return run_task(
            "convert_checkpoint",
            checkpoint=checkpoint.file,
            output=output,
            tokenizer=checkpoint.tokenizer,
            stable_diffusion=checkpoint.stable_diffusion,
            sizes=checkpoint.sizes,
        )

    def copy() -> float:
        prepare()
        start = time.perf_counter()
        shutil.copyfile(checkpoint.file, copied)
        return time.perf_counter() - start

    trials: dict[str, Callable[[], Any]] = {"convert": convert, "copy": copy}
    try:
        found = interleave(trials, bench.rounds, warm_ups=0)
    finally:
        prepare()
    outcomes: list[Outcome] = found["convert"]
    size = checkpoint.file.stat().st_size
    yield (
        "conversion",
        Measurement(
            values=tuple(outcome.report["seconds"] for outcome in outcomes),
            baselines=tuple(found["copy"]),
            note=f"{size / 1e9:.1f} GB, page cache warm",
        ),
    )
    anonymous = max(outcome.anonymous for outcome in outcomes)
    yield (
        "conversion-memory",
        Measurement(
            values=tuple(outcome.peak / 1e9 for outcome in outcomes),
            baselines=(size / 1e9,) * len(outcomes),
            note=f"{anonymous / 1e9:.1f} GB of it not mapped from files",
        ),
    )

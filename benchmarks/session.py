"""One run: the workbench is set up, suites measure, the report grows."""

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.fabricate import fabricate_checkpoint, fabricate_weights
from benchmarks.machine import describe_machine, describe_versions, load_average
from benchmarks.measuring import Measurement, NotMeasured, not_measured
from benchmarks.report import merge, write_report
from benchmarks.request import WHOLE
from benchmarks.rows import ROW, ROWS
from benchmarks.suites import MEASURE
from benchmarks.workbench import Workbench, read_contents
from kosmosg.checkpoints.folder import check_layout
from kosmosg.errors import OutOfMemoryError
from kosmosg.pipeline import choose_device
from kosmosg.utils.checks import check_integer

logger = logging.getLogger(__name__)

STEPS_ON_A_CPU = 6  # at full size, where one of them takes seconds
FULL_PARAMETERS = 2.8e9  # the released model has 2 831 012 523


def open_workbench(options: argparse.Namespace, trials: Path) -> Workbench:
    """Set up what was asked for; random weights are made when missing.

    Raises:
        KosmosGError: If a setting is out of bounds, or the weights that were named are not there.
    """
    device = choose_device(options.device)
    if options.threads is not None:
        torch.set_num_threads(check_integer("--threads", options.threads, 1, 4096))
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for the processes to come
    slow = options.size == "full" and device.type == "cpu"
    usual = STEPS_ON_A_CPU if slow else WHOLE
    steps = usual if options.steps is None else options.steps
    checkpoint = None
    if options.weights:
        check_layout(options.weights)
    else:
        folder = options.folder / options.size
        checkpoint = fabricate_checkpoint(folder, options.size)
    return Workbench(
        device=device,
        weights=options.weights or fabricate_weights(folder, options.size),
        checkpoint=checkpoint,
        folder=trials,
        rounds=check_integer("--rounds", options.rounds, 1, 1000),
        steps=check_integer("--steps", steps, 3, WHOLE),
        everything=options.everything,
    )


def measure(bench: Workbench, suites: Sequence[str], output: Path) -> None:
    """Run suites and write the report after each."""
    parameters, _ = read_contents(bench.files)
    settings: dict[str, Any] = {
        "size": "full" if parameters > FULL_PARAMETERS else "small",
        "weights": "random" if bench.checkpoint else str(bench.weights),
        "rounds": bench.rounds,
        "steps": bench.steps,
        "machine": describe_machine(bench.device),
        "versions": describe_versions(),
        "load_average": {"before": load_average()},
    }
    found: dict[str, Measurement] = {}
    for suite in suites:
        logger.info("%s …", suite)
        found |= dict(measure_suite(bench, suite))
        bench.release()
        settings["load_average"]["after"] = load_average()
        write_report(output, settings, merge([row.name for row in ROWS], found))


def measure_suite(bench: Workbench, suite: str) -> Iterator[tuple[str, Measurement]]:
    """Measure every row of a suite, or say why not."""
    rows = [row.name for row in ROWS if row.suite == suite]
    missing = {name for name in rows if not bench.lacks(name)}
    reason = ""
    try:
        for name, measurement in MEASURE[suite](bench):
            missing.discard(name)
            if not bench.lacks(name):
                log(name, measurement)
                yield name, measurement
    except NotMeasured as error:
        reason = str(error)
    except (OutOfMemoryError, torch.OutOfMemoryError):
        reason = "the memory is too small"
    assert reason or not missing, f"the suite {suite} forgot {missing}"
    for name in rows:
        if lack := bench.lacks(name):
            yield name, not_measured(lack)
        elif name in missing:
            yield name, not_measured(reason)


def log(name: str, measurement: Measurement) -> None:
    """Tell how far the run is."""
    if measurement.reason:
        logger.info("  %s: not measured (%s)", name, measurement.reason)
    else:
        logger.info("  %s: %.3f of %s", name, measurement.ratio, ROW[name].baseline)

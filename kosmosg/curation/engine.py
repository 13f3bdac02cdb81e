"""The steps as a Ray Data pipeline, on this machine or on a cluster.

A row is a portion. Steps without a model are tasks, which Ray starts on whatever core is free;
each step with a model has a pool of workers that hold it. Ray keeps as many portions on their way
as its object store has room for, and holds the earlier steps back when the later ones are slower.
What a dead worker was at is given to another one.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from kosmosg.curation.drafts import Listing, Portion
from kosmosg.curation.ledger import Ledger
from kosmosg.curation.steps import Step, advance
from kosmosg.errors import CurationError

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # at a step of a portion: Ray itself would try for ever where every worker dies
BROKEN = 8  # portions that may be lost before a run stops
STUCK = 6 * 3600.0  # seconds without progress; fetching models takes long
IN_FLIGHT = 2  # portions that a worker with a model has at hand: one to work on, one waiting

# By the name of a stage, how many workers and how many GPUs for each; nothing: as it comes.
Wishes = Mapping[str, tuple[int | None, float | None]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A portion to be made."""

    number: int
    listing: Listing


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step, as the engine needs to know it.

    Attributes:
        name: Of the step.
        make: Makes it where it is to work.
        model: Whether it holds a model, which takes long to load.
    """

    name: str
    make: Callable[[], Step]
    model: bool = False


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How much of a machine the workers of a stage take.

    Attributes:
        count: How many; nothing: as many as there is room for.
        cpus: Cores of each.
        gpus: GPUs of each, or parts of one.
    """

    count: int | None
    cpus: float
    gpus: float = 0.0


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[dict[str, float]]:
    """Start Ray on this machine, or join a cluster, and leave it at the end.

    Args:
        address: Of the cluster, or ``auto``; nothing: this machine, whatever runs on it besides.
        cpus: Cores of this machine to use; nothing: all.

    Yields:
        What all machines have, such as ``{"CPU": 16.0, "GPU": 1.0}``.

    Raises:
        CurationError: If it does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    import ray

    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    verbose = logging.getLogger().isEnabledFor(logging.INFO)
    try:
        ray.init(
            address=address or "local",
            num_cpus=None if address else cpus,
            include_dashboard=None if address else False,
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CurationError(
            f"Ray does not start on {address or 'this machine'} ({error}). Check the address, and "
            "that the cluster runs the same version of Ray."
        ) from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def share_out(
    stages: Sequence[Stage], cpus: float, gpus: float, wishes: Wishes
) -> dict[str, Workers]:
    """Decide how many workers each stage has, and how large they are.

    Without wishes, each model has as many workers as there are GPUs, and an equal part of one for
    each; without GPUs it has one worker. The cores are shared out among them, and one share is left
    for the other stages.

    Args:
        stages: All of them.
        cpus: Cores of all machines.
        gpus: GPUs of all machines.
        wishes: Number of workers and GPUs of each, by the name of a stage.

    Raises:
        CurationError: If there are too few GPUs: Ray would wait for ever. Or if a stage without a
            model is to have some.
    """
    _check_wishes(stages, wishes)
    models = [stage for stage in stages if stage.model]
    counts = {stage.name: wishes.get(stage.name, (None, None))[0] for stage in stages}
    parts = dict.fromkeys(counts, 0.0)
    for stage in models:
        counts[stage.name] = counts[stage.name] or max(1, int(gpus))
        wished = wishes.get(stage.name, (None, None))[1]
        parts[stage.name] = _part(min(1.0, gpus), len(models)) if wished is None else wished
    wanted = sum((counts[stage.name] or 1) * parts[stage.name] for stage in models)
    if wanted > gpus:
        raise CurationError(
            f"The workers want {wanted:g} GPUs, and there are {gpus:g}. Choose fewer of them, or "
            f"smaller parts, for {', '.join(stage.name for stage in models)}."
        )
    workers = sum(counts[stage.name] or 1 for stage in models)
    cores = min(1.0, _part(cpus, workers + 1))
    return {
        stage.name: Workers(count=counts[stage.name], cpus=cores, gpus=parts[stage.name])
        for stage in stages
    }


def _check_wishes(stages: Sequence[Stage], wishes: Wishes) -> None:
    for stage in stages:
        if not stage.model and wishes.get(stage.name, (None, None))[1]:
            raise CurationError(
                f"Stage {stage.name} has no model, and so no use for a GPU. Choose its number of "
                "workers alone."
            )


def run_here(jobs: Sequence[Job], stages: Sequence[Stage], ledger: Ledger) -> Iterator[int]:
    """Make portions one after the other in this process, without Ray.

    Yields:
        The numbers of the finished shards.
    """
    steps = [stage.make() for stage in stages]
    for job in jobs:
        portion = begin(job)
        for step in steps:
            portion = advance(portion, step)
        ledger.write(portion)
        yield job.number


def run_on_ray(
    jobs: Sequence[Job], stages: Sequence[Stage], ledger: Ledger, workers: Mapping[str, Workers]
) -> Iterator[int]:
    """Make portions on the machines that Ray has.

    Yields:
        The numbers of the finished shards, in any order.

    Raises:
        CurationError: If the run cannot go on.
    """
    import ray
    from ray.data.exceptions import ExecutionTimeoutError, SystemException

    _set_up(ray.data.DataContext.get_current())
    rows = [{"job": job} for job in jobs]
    cores = min(each.cpus for each in workers.values())
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data = data.map(_begin, num_cpus=cores)
    for stage in stages:
        data = _add_stage(data, stage, workers[stage.name], ledger)
    data = data.map(partial(_write, ledger=ledger), num_cpus=cores)
    try:
        for row in data.iter_rows():
            yield row["number"]
    except (ray.exceptions.RayError, SystemException, ExecutionTimeoutError) as error:
        raise CurationError(
            f"The run stopped: {find_cause(error)}. Mend that, then run the command again; what "
            "is finished is kept."
        ) from error


def begin(job: Job) -> Portion:
    """Make a portion of empty drafts."""
    return Portion(number=job.number, drafts=tuple(job.listing.drafts()))


def find_cause(error: BaseException) -> str:
    """Return what began a chain of errors, in one line."""
    while True:
        inner = error.__cause__ or getattr(error, "cause", None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().rstrip(".")[:500]


def _part(whole: float, parts: int) -> float:
    """Divide, and round down, so that the parts fit into the whole."""
    return math.floor(100 * whole / parts) / 100


class _Worker:
    """Holds a step; Ray makes it where it is to work."""

    def __init__(self, make: Callable[[], Step], ledger: Ledger):
        self._step, self._ledger = make(), ledger

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"portion": _attempt(row["portion"], self._step, self._ledger)}


def _begin(row: dict[str, Any]) -> dict[str, Any]:
    return {"portion": begin(row["job"])}


def _advance(row: dict[str, Any], make: Callable[[], Step], ledger: Ledger) -> dict[str, Any]:
    return {"portion": _attempt(row["portion"], make(), ledger)}


def _write(row: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    ledger.write(row["portion"])
    return {"number": row["portion"].number}


def _attempt(portion: Portion, step: Step, ledger: Ledger) -> Portion:
    """Take a portion one step further, unless that has killed too many workers."""
    if ledger.count_attempt(portion.number, step.name) > ATTEMPTS:
        raise CurationError(
            f"Step {step.name}: {ATTEMPTS} workers died over shard {portion.number}, which is left "
            "out. They may have had too little memory: choose a smaller --per-shard."
        )
    return advance(portion, step)


def _add_stage(data: Any, stage: Stage, workers: Workers, ledger: Ledger) -> Any:
    import ray

    if stage.model:
        pool = ray.data.ActorPoolStrategy(
            size=workers.count, max_tasks_in_flight_per_actor=IN_FLIGHT
        )
        return data.map(
            _Worker,
            fn_constructor_args=(stage.make, ledger),
            compute=pool,
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
        )
    return data.map(
        partial(_advance, make=stage.make, ledger=ledger),
        compute=ray.data.TaskPoolStrategy(size=workers.count),
        num_cpus=workers.cpus,
    )


def _set_up(context: Any) -> None:
    """Set Ray Data up for rows that are large, and for samples that kill a worker each time."""
    context.max_errored_blocks = BROKEN
    context.execution_no_progress_timeout_s = STUCK
    context.target_max_block_size = None  # a portion is not divided
    context.enable_fallback_to_arrow_object_ext_type = True  # portions travel as Python objects
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

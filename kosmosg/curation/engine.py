"""The steps as a Ray Data pipeline, on this machine or on a cluster.

A row is a portion. Steps without a model are tasks, which Ray starts on whatever core is free;
each step with a model has a pool of workers that hold it. Ray keeps as many portions on their way
as its object store has room for, and holds the earlier steps back when the later ones are slower.
What a dead worker was at is given to another one.
"""

import logging
import os
import re
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from kosmosg.curation.output import Ledger
from kosmosg.curation.records import Listing, Portion
from kosmosg.curation.steps import Step, advance
from kosmosg.curation.workers import Stage, Workers
from kosmosg.errors import CurationError, KosmosGError

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # at a step of a portion: Ray itself would try for ever where every worker dies
BROKEN = 8  # portions that may fail as a whole before a run stops
KNOCK = 10.0  # seconds for a cluster to answer
STUCK = 6 * 3600.0  # seconds without progress; fetching models takes long
IN_FLIGHT = 2  # portions that a worker with a model has at hand: one to work on, one waiting
# Bytes, which are nothing; but a stage with other demands than the one before is not joined to it,
# and pictures are not read by the worker whose model waits for them.
OWN_POOL = 1
_ERROR = re.compile(r"(\w+\.)*\w+(Error|Exception): ")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A portion to be made."""

    number: int
    listing: Listing


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[Mapping[str, float]]:
    """Start Ray on this machine, or join a cluster, and leave it at the end.

    Args:
        address: Of the cluster, or ``auto``; nothing: this machine, whatever runs on it besides.
        cpus: Cores of this machine to use; nothing: all.

    Yields:
        What all machines have, such as ``{"CPU": 16.0, "GPU": 1.0}``.

    Raises:
        CurationError: If it does not start, or nobody answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    import ray

    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    if address and address != "auto":
        _check_address(address)
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
        reason = str(error).rstrip(".")
        raise CurationError(
            f"Ray does not start on {address or 'this machine'} ({reason}). Check the address, and "
            "that the cluster runs the same version of Ray."
        ) from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def run_here(jobs: Sequence[Job], stages: Sequence[Stage], ledger: Ledger) -> Generator[int]:
    """Make portions one after the other in this process, without Ray.

    A portion that fails as a whole is left out, and the log says why.

    Yields:
        The numbers of the finished shards.

    Raises:
        CurationError: If a model cannot be opened, or too many portions fail.
    """
    steps = [stage.make() for stage in stages]
    count = _count_broken()
    for job in jobs:
        row = _begin({"job": job})
        for step in steps:
            row = _guard(row, partial(advance, step=step))
        row = _write(row, ledger)
        if row["problem"]:
            count(row)
        else:
            yield row["number"]


def run_on_ray(
    jobs: Sequence[Job], stages: Sequence[Stage], ledger: Ledger, workers: Mapping[str, Workers]
) -> Iterator[int]:
    """Make portions on the machines that Ray has.

    A portion that fails as a whole is left out, and the log says why.

    Yields:
        The numbers of the finished shards, in any order.

    Raises:
        CurationError: If a model cannot be opened, or too many portions fail.
    """
    import ray
    import ray.exceptions
    from ray.data.exceptions import ExecutionTimeoutError, SystemException

    _set_up(ray.data.DataContext.get_current())
    count = _count_broken()
    rows = [{"job": job} for job in jobs]
    cores = min(each.cpus for each in workers.values())
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data = data.map(_begin, num_cpus=cores)
    for stage in stages:
        data = _add_stage(data, stage, workers[stage.name], ledger)
    data = data.map(partial(_write, ledger=ledger), num_cpus=cores)
    try:
        for row in data.iter_rows():
            if row["problem"]:
                count(row)
            else:
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
    """Return what began a chain of errors, in one line: where there is one, an error of ours."""
    chain = [error]
    while isinstance(inner := error.__cause__ or getattr(error, "cause", None), BaseException):
        error = inner
        chain.insert(0, error)
    # Ray puts errors of workers into the text of its own, as a traceback prints them, and may put
    # one without a text before them.
    lines = [line.strip() for each in chain for line in str(each).splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]
    ours = [line.partition(": ")[2] for line in named if line.startswith("kosmosg.errors.")]
    last = [str(each).strip().splitlines()[-1] for each in chain if str(each).strip()]
    found = [*ours[-1:], *named[:1], *last, type(error).__name__]
    return found[0].strip().rstrip(".")[:500]


def _count_broken() -> Callable[[Mapping[str, Any]], None]:
    """Return what logs a portion that is left out, and stops the run at too many of them."""
    broken = 0

    def count(row: Mapping[str, Any]) -> None:
        nonlocal broken
        logger.error("Shard %d is left out. %s", row["number"], row["problem"])
        broken += 1
        if broken > BROKEN:
            raise CurationError(f"The run stopped after {broken} shards that failed like this.")

    return count


@dataclass(frozen=True, kw_only=True)
class _Failed:
    """What is left of a portion that failed as a whole; it passes through the later steps."""

    number: int
    problem: str


class _Worker:
    """Holds a step; Ray makes it where it is to work."""

    def __init__(self, make: Callable[[], Step], ledger: Ledger):
        self._step, self._ledger = make(), ledger

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _guard(row, lambda portion: _attempt(portion, self._step, self._ledger))


def _begin(row: dict[str, Any]) -> dict[str, Any]:
    job = row["job"]
    return _guard({"portion": Portion(number=job.number, drafts=())}, lambda _: begin(job))


def _advance(row: dict[str, Any], make: Callable[[], Step], ledger: Ledger) -> dict[str, Any]:
    return _guard(row, lambda portion: _attempt(portion, make(), ledger))


def _write(row: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    def written(portion: Portion) -> Portion:
        ledger.write(portion)
        return portion

    portion = _guard(row, written)["portion"]
    problem = portion.problem if isinstance(portion, _Failed) else ""
    return {"number": portion.number, "problem": problem}


def _guard(row: dict[str, Any], work: Callable[[Portion], Portion]) -> dict[str, Any]:
    """Work on a portion, unless it has failed; what goes wrong is its problem alone."""
    portion = row["portion"]
    if isinstance(portion, _Failed):
        return row
    try:
        return {"portion": work(portion)}
    except Exception as error:  # noqa: BLE001  the other portions can be used
        name = "" if isinstance(error, KosmosGError) else f"{type(error).__name__}: "
        return {"portion": _Failed(number=portion.number, problem=f"{name}{error}"[:500])}


def _attempt(portion: Portion, step: Step, ledger: Ledger) -> Portion:
    """Take a portion one step further, unless that has killed too many workers."""
    if ledger.count_attempt(portion.number, step.name) > ATTEMPTS:
        raise CurationError(
            f"Step {step.name}: {ATTEMPTS} workers died over it. They may have had too little "
            "memory: choose a smaller --per-shard."
        )
    return advance(portion, step)


def _check_address(address: str) -> None:
    """Knock at an address: Ray would try for half an hour where nobody answers."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 2**16):
        raise CurationError(
            f"--address {address}: wanted HOST:PORT, such as 10.0.0.1:6379, or auto."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
    except OSError as error:
        raise CurationError(
            f"--address {address}: nobody answers there ({error}). Name the machine and port that "
            "`ray start --head` printed, and see that its firewall lets this one in."
        ) from error


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
            memory=OWN_POOL,
        )
    return data.map(
        partial(_advance, make=stage.make, ledger=ledger),
        compute=ray.data.TaskPoolStrategy(size=workers.count),
        num_cpus=workers.cpus,
    )


def _set_up(context: Any) -> None:
    """Set Ray Data up for rows that are large."""
    context.execution_no_progress_timeout_s = STUCK
    context.target_max_block_size = None  # a portion is not divided
    context.enable_fallback_to_arrow_object_ext_type = True  # portions travel as Python objects
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Pages of its own traceback, and the advice to report it; what matters is raised, too.
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)

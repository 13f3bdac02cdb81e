"""The steps over portions: one after the other in this process, or as a Ray Data pipeline.

A row of the pipeline is a portion. Steps without a model are tasks, which Ray starts on whatever
core is free; each step with a model has a pool of workers that hold it. Ray keeps as many portions
on their way as its object store has room for, and holds the earlier steps back when the later ones
are slower. What a dead worker was at is given to another one.
"""

import logging
import math
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
from kosmosg.curation.steps import Stage, Step, advance
from kosmosg.errors import CurationError

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # at a step of a portion: Ray by itself would try for ever where every worker dies
BROKEN = 8  # portions that may fail as a whole before a run stops
KNOCK = 10.0  # seconds for a cluster to answer
STUCK = 6 * 3600.0  # seconds without progress; fetching models takes long
IN_FLIGHT = 2  # portions that a worker with a model has at hand: one to work on, one waiting
# Bytes, which are nothing; but a step with other demands than the one before is not joined to it,
# and images are not read by the worker whose model waits for them.
OWN_POOL = 1

# By the name of a stage, how many workers and how many GPUs for each; nothing: as it comes.
Wishes = Mapping[str, tuple[int | None, float | None]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A portion to be made."""

    number: int
    listing: Listing

    def begin(self) -> Portion:
        """Make a portion of empty drafts."""
        return Portion(number=self.number, drafts=tuple(self.listing.drafts()))


def run_here(jobs: Sequence[Job], stages: Sequence[Stage], ledger: Ledger) -> Generator[int]:
    """Make portions one after the other in this process, without Ray.

    A portion that fails as a whole is left out, and the log says why.

    Yields:
        The numbers of the finished shards.

    Raises:
        CurationError: If a model cannot be opened, or too many portions fail.
    """
    steps = [stage.make() for stage in stages]
    broken = 0
    for job in jobs:
        try:
            portion = job.begin()
            for step in steps:
                portion = advance(portion, step)
        except CurationError as error:
            broken += 1
            if broken > BROKEN:
                raise _stopped(error) from error
            logger.error("A shard is left out. %s", error)
        else:
            ledger.write(portion)
            yield portion.number


def run_on_ray(
    jobs: Sequence[Job], stages: Sequence[Stage], ledger: Ledger, workers: Mapping[str, "Workers"]
) -> Iterator[int]:
    """Make portions on the machines that Ray has.

    A portion that fails as a whole, or over which too many workers die, is left out, and the log
    says why.

    Yields:
        The numbers of the finished shards, in any order.

    Raises:
        CurationError: If a model cannot be opened, or too many portions fail.
    """
    import ray
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError

    _set_up(ray.data.DataContext.get_current())
    rows = [{"job": job} for job in jobs]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    cores = min(each.cpus for each in workers.values())
    data = data.map_batches(_begin, batch_size=1, num_cpus=cores)
    for stage in stages:
        share = workers[stage.name]
        if stage.model:
            data = data.map_batches(
                _Worker,
                fn_constructor_args=(stage.make, ledger),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    size=share.count, max_tasks_in_flight_per_actor=IN_FLIGHT
                ),
                num_cpus=share.cpus,
                num_gpus=share.gpus,
                memory=OWN_POOL,
            )
        else:
            data = data.map_batches(
                partial(_advance, make=stage.make, ledger=ledger),
                batch_size=1,
                compute=ray.data.TaskPoolStrategy(size=share.count),
                num_cpus=share.cpus,
            )
    data = data.map_batches(partial(_write, ledger=ledger), batch_size=1, num_cpus=cores)
    try:
        for row in data.iter_rows():
            yield row["number"]
    except (RayError, ExecutionTimeoutError) as error:
        raise _stopped(error) from error


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
    except (OSError, ValueError, RuntimeError) as error:
        raise CurationError(
            f"Ray does not start on {address or 'this machine'}: {_why(error)}"
        ) from (error)
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


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


class _Worker:
    """Holds a step; Ray makes it where it is to work."""

    def __init__(self, make: Callable[[], Step], ledger: Ledger):
        self._step, self._ledger = make(), ledger

    def __call__(self, rows: Any) -> dict[str, list[Portion]]:
        return {"portion": [self._try(portion) for portion in rows["portion"]]}

    def _try(self, portion: Portion) -> Portion:
        """Take a portion one step further, unless that has killed too many workers."""
        if self._ledger.count_attempt(portion.number, self._step.name) > ATTEMPTS:
            raise CurationError(
                f"Shard {portion.number}, step {self._step.name}: {ATTEMPTS} workers died over it. "
                "They may have had too little memory: choose a smaller --per-shard, and another "
                "folder."
            )
        return advance(portion, self._step)


def _begin(rows: Any) -> dict[str, list[Portion]]:
    return {"portion": [job.begin() for job in rows["job"]]}


def _advance(rows: Any, make: Callable[[], Step], ledger: Ledger) -> dict[str, list[Portion]]:
    return _Worker(make, ledger)(rows)


def _write(rows: Any, ledger: Ledger) -> dict[str, list[int]]:
    for portion in rows["portion"]:
        ledger.write(portion)
    return {"number": [portion.number for portion in rows["portion"]]}


def _stopped(error: Exception) -> CurationError:
    return CurationError(
        f"The run stopped: {_reason(error)}. Mend that, then run the command again; what is "
        "finished is kept."
    )


def _reason(error: BaseException) -> str:
    """Say in one line what went wrong in a worker."""
    if (cause := getattr(error, "cause", None)) is not None:
        return str(cause).partition("\n")[0].rstrip(".")  # Ray adds lines of its own
    # Where a model was to be opened, Ray keeps only what Python prints of the exception, which
    # ends with the message.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^kosmosg\.errors\.\w+: ", "", lines[-1].strip()).rstrip(".")


class _OneLine(logging.Filter):
    """Leaves one line of what Ray logs of a portion that is left out: tracebacks help nobody."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            record.msg, record.args = "A shard is left out. %s.", (_reason(record.exc_info[1]),)
            record.exc_info = record.exc_text = None
        return True


def _set_up(context: Any) -> None:
    """Set Ray Data up for rows that are large, and to pass over what fails."""
    context.max_errored_blocks = BROKEN
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = STUCK
    context.target_max_block_size = None  # a portion is not divided
    context.enable_fallback_to_arrow_object_ext_type = True  # portions travel as Python objects
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    log = logging.getLogger("ray.data")
    log.setLevel(logging.ERROR)
    for handler in log.handlers:
        handler.addFilter(_OneLine())
    # Pages of its own traceback, and the advice to report it; what matters is raised, too.
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)


def _check_wishes(stages: Sequence[Stage], wishes: Wishes) -> None:
    for stage in stages:
        if not stage.model and wishes.get(stage.name, (None, None))[1]:
            raise CurationError(
                f"Stage {stage.name} has no model, and so no use for a GPU. Choose its number of "
                "workers alone."
            )


def _part(whole: float, parts: int) -> float:
    """Divide, and round down, so that the parts fit into the whole."""
    return math.floor(100 * whole / parts) / 100


def _why(error: Exception) -> str:
    """Say why Ray does not start, and what helps."""
    if "AF_UNIX" in str(error):
        name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
        return (
            f"the path of its temporary folder is too long for sockets ({name}="
            f"{os.environ.get(name)}). Set RAY_TMPDIR to a folder with a short path, such as /tmp."
        )
    reason = " ".join(str(error).split()).rstrip(".")
    return (
        f"{reason}. Check the address, and that the cluster runs the same version of Ray, or work "
        "without it: --in-process."
    )


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

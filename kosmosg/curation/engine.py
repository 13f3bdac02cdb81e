"""A pipeline over its shards: one after the other in this process, or on the machines of Ray.

A row of the Ray Data pipeline is a shard. Steps without a model are tasks, which Ray starts on
whatever core is free; each step with a model has a pool of workers that hold it. Ray keeps as many
shards on their way as its object store has room for, and holds the earlier steps back when the
later ones are slower. What a dead worker was at is given to another one.
"""

import logging
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from kosmosg.curation.options import EngineOptions
from kosmosg.curation.output import SET_ASIDE, OutputFolder
from kosmosg.curation.pipelines import Pipeline
from kosmosg.curation.preview import write_report
from kosmosg.curation.records import Listing, ShardRecords
from kosmosg.curation.steps import PipelineStep, Step, advance
from kosmosg.curation.totals import Totals
from kosmosg.curation.workers import Workers, connected, parse_workers, share_out
from kosmosg.data.bad_samples import other_remedies
from kosmosg.errors import CurationError

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # at a step of a shard: Ray by itself would try for ever where every worker dies
BROKEN = 8  # shards that may fail as a whole before a run stops
STUCK = 6 * 3600.0  # seconds without progress; fetching models takes long
IN_FLIGHT = 2  # shards that a worker with a model has at hand: one to work on, one waiting
# Bytes, which are nothing; but a step with other demands than the one before is not joined to it,
# and images are not read by the worker whose model waits for them.
OWN_POOL = 1


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """A shard to be made: its number, and what it begins with."""

    number: int
    listing: Listing

    def begin(self) -> ShardRecords:
        """Make the records, which are still empty."""
        return ShardRecords(number=self.number, records=tuple(self.listing.records()))


def curate(pipeline: Pipeline, output: OutputFolder, options: EngineOptions) -> None:
    """Make the shards that are not finished, and print what is in all of them.

    Args:
        pipeline: What is made of what.
        output: Where to.
        options: Where the work is done.

    Raises:
        CurationError: If another run is at work in the folder, or it was made with other settings;
            if shards could not be made, or nothing was kept.
    """
    overrides = parse_workers(options.workers, [step.name for step in pipeline.steps])
    planned = len(pipeline.source.listings)
    with output.held(pipeline.settings):
        plans = plan_missing(pipeline, output)
        try:
            with (
                closing(_make(plans, pipeline.steps, output, overrides, options)) as numbers,
                tqdm(
                    desc="curate", unit="shard", total=planned, initial=planned - len(plans)
                ) as progress,
            ):
                for _ in numbers:
                    progress.update()
        finally:
            table, totals = write_report(output, pipeline.settings, planned)
            print(table, end="")
        output.end()
        _check(plan_missing(pipeline, output), planned, totals, output)


def plan_missing(pipeline: Pipeline, output: OutputFolder) -> list[ShardPlan]:
    """List the shards that are not finished."""
    finished = output.finished()
    return [
        ShardPlan(number=number, listing=listing)
        for number, listing in enumerate(pipeline.source.listings)
        if number not in finished
    ]


def run_here(
    plans: Sequence[ShardPlan], steps: Sequence[PipelineStep], output: OutputFolder
) -> Generator[int]:
    """Make shards one after the other in this process, without Ray.

    A shard that fails as a whole is left out, and the log says why.

    Yields:
        The numbers of the finished shards.

    Raises:
        CurationError: If a model cannot be opened, or too many shards fail.
    """
    made = [step.make() for step in steps]
    broken = 0
    for plan in plans:
        try:
            shard = plan.begin()
            for step in made:
                shard = advance(shard, step)
        except CurationError as error:
            broken += 1
            if broken > BROKEN:
                raise _stopped(error) from error
            logger.error("A shard is left out. %s", error)
        else:
            output.write(shard)
            yield shard.number


def run_on_ray(
    plans: Sequence[ShardPlan],
    steps: Sequence[PipelineStep],
    output: OutputFolder,
    workers: Mapping[str, Workers],
) -> Iterator[int]:
    """Make shards on the machines that Ray has.

    A shard that fails as a whole, or over which too many workers die, is left out, and the log
    says why.

    Args:
        plans: The shards.
        steps: In their order.
        output: Where to; all machines see it under its path.
        workers: Of each step, by its name.

    Yields:
        The numbers of the finished shards, in any order.

    Raises:
        CurationError: If a model cannot be opened, or too many shards fail.
    """
    import ray
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayError

    _set_up(ray.data.DataContext.get_current())
    rows = [{"plan": plan} for plan in plans]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    cores = min(each.cpus for each in workers.values())
    data = data.map_batches(_begin, batch_size=1, num_cpus=cores)
    for step in steps:
        share = workers[step.name]
        if step.model:
            data = data.map_batches(
                _Worker,
                fn_constructor_args=(step.make, output),
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
                partial(_advance, make=step.make, output=output),
                batch_size=1,
                compute=ray.data.TaskPoolStrategy(size=share.count),
                num_cpus=share.cpus,
            )
    data = data.map_batches(partial(_write, output=output), batch_size=1, num_cpus=cores)
    try:
        for row in data.iter_rows():
            yield row["number"]
    except (RayError, ExecutionTimeoutError) as error:
        raise _stopped(error) from error


def _make(
    plans: Sequence[ShardPlan],
    steps: Sequence[PipelineStep],
    output: OutputFolder,
    overrides: Mapping[str, tuple[int, float | None]],
    options: EngineOptions,
) -> Generator[int]:
    if not plans:
        return
    if options.in_process:
        yield from run_here(plans, steps, output)
        return
    with connected(options.address, options.cpus) as has:
        workers = share_out(steps, has.get("CPU", 1.0), has.get("GPU", 0.0), overrides)
        yield from run_on_ray(plans, steps, output, workers)


def _check(
    missing: Sequence[ShardPlan], planned: int, totals: Totals, output: OutputFolder
) -> None:
    """Refuse to end as if all were well."""
    if missing:
        raise CurationError(
            f"{len(missing)} of {planned} shards could not be made, such as number "
            f"{missing[0].number}; the messages above say why. Run the command again to try them "
            "again."
        )
    if not totals.samples:
        reasons = ", ".join(f"{n} × {reason}" for reason, n in totals.reasons.most_common())
        raise CurationError(
            f"No sample was kept ({reasons}). {output.directory / SET_ASIDE} says why, sample by "
            f"sample. Mend the source{other_remedies(totals.reasons)}, and write to another folder."
        )


class _Worker:
    """Holds a step; Ray makes it where it is to work."""

    def __init__(self, make: Callable[[], Step], output: OutputFolder):
        self._step, self._output = make(), output

    def __call__(self, rows: Any) -> dict[str, list[ShardRecords]]:
        return {"shard": [self._try(shard) for shard in rows["shard"]]}

    def _try(self, shard: ShardRecords) -> ShardRecords:
        """Take a shard one step further, unless that has killed too many workers."""
        if self._output.count_attempt(shard.number, self._step.name) > ATTEMPTS:
            raise CurationError(
                f"Shard {shard.number}, step {self._step.name}: {ATTEMPTS} workers died over it. "
                "They may have had too little memory: choose a smaller --per-shard, and another "
                "folder."
            )
        return advance(shard, self._step)


def _begin(rows: Any) -> dict[str, list[ShardRecords]]:
    return {"shard": [plan.begin() for plan in rows["plan"]]}


def _advance(
    rows: Any, make: Callable[[], Step], output: OutputFolder
) -> dict[str, list[ShardRecords]]:
    return _Worker(make, output)(rows)


def _write(rows: Any, output: OutputFolder) -> dict[str, list[int]]:
    for shard in rows["shard"]:
        output.write(shard)
    return {"number": [shard.number for shard in rows["shard"]]}


def _set_up(context: Any) -> None:
    """Set Ray Data up for rows that are large, and to pass over what fails."""
    context.max_errored_blocks = BROKEN
    context.raise_original_map_exception = True
    context.execution_no_progress_timeout_s = STUCK
    context.target_max_block_size = None  # a shard is not divided
    context.enable_fallback_to_arrow_object_ext_type = True  # shards travel as Python objects
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    log = logging.getLogger("ray.data")
    log.setLevel(logging.ERROR)
    for handler in log.handlers:
        handler.addFilter(_OneLine())
    # Pages of its own traceback, and the advice to report it; what matters is raised, too.
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)


class _OneLine(logging.Filter):
    """Leaves one line of what Ray logs of a shard that is left out: tracebacks help nobody."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            record.msg, record.args = "A shard is left out. %s.", (_reason(record.exc_info[1]),)
            record.exc_info = record.exc_text = None
        return True


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

"""One step of curation over a shard: in groups, timed, and stopped by no single sample."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kosmosg.curation.records import Outcome, Record, Rejection, ShardRecords, set_aside
from kosmosg.errors import CurationError
from kosmosg.utils.memory import free_memory, is_out_of_memory

logger = logging.getLogger(__name__)

TOO_MANY = 8  # samples that do not all fail by themselves


class Step(Protocol):
    """Takes records further."""

    @property
    def name(self) -> str:
        """What to call it in counts and messages."""
        ...

    @property
    def batch(self) -> int:
        """How many records it takes at once at most."""
        ...

    def __call__(self, records: Sequence[Record], /) -> Sequence[Outcome]:
        """Work on some records, and return one outcome for each, in their order."""
        ...


@dataclass(frozen=True, kw_only=True)
class PipelineStep:
    """A step, as the engine needs to know it.

    Attributes:
        name: Of the step.
        make: Makes it where it is to work.
        model: Whether it holds a model, which takes long to load.
    """

    name: str
    make: Callable[[], Step]
    model: bool = False


def advance(shard: ShardRecords, step: Step) -> ShardRecords:
    """Take a shard one step further.

    Samples for which the step fails are set aside. A group that fails is divided and tried
    again, which finds the sample that is to blame, and a size that fits into the memory.

    Raises:
        CurationError: If all samples fail: then it is not the samples.
    """
    started = time.perf_counter()
    outcomes: list[Outcome] = []
    for first in range(0, len(shard.records), step.batch):
        outcomes += _attempt(step, shard.records[first : first + step.batch])
    errors = [each for each in outcomes if isinstance(each, Rejection) and each.reason == "error"]
    if len(errors) == len(outcomes) >= TOO_MANY:
        raise CurationError(
            f"Step {step.name}: it failed for all {len(errors)} samples of shard {shard.number}, "
            f"the last with {errors[-1].detail}."
        )
    return shard.after(step.name, outcomes, time.perf_counter() - started)


def _attempt(step: Step, records: Sequence[Record]) -> Sequence[Outcome]:
    try:
        outcomes = step(records)
        assert len(outcomes) == len(records), f"{step.name}: one outcome for each record"
        return outcomes
    except Exception as error:  # noqa: BLE001  whatever it is, the other samples can be used
        scarce = is_out_of_memory(error)
        problem = f"{type(error).__name__}: {error}"[:500]
    # Outside of the handler: the exception, which holds every tensor of the attempt, is gone.
    if scarce:
        free_memory()
    if len(records) == 1:
        logger.warning("%s: %s set aside (%s)", step.name, records[0].key, problem)
        return [set_aside(records[0], "error", problem)]
    middle = len(records) // 2
    return [*_attempt(step, records[:middle]), *_attempt(step, records[middle:])]

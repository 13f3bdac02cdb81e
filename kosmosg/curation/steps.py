"""One step of curation over a portion: in groups, timed, and stopped by no single sample."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kosmosg.curation.records import Draft, Outcome, Portion, Rejection, set_aside
from kosmosg.errors import CurationError
from kosmosg.utils.memory import free_memory, is_out_of_memory

logger = logging.getLogger(__name__)

TOO_MANY = 8  # samples that do not all fail by themselves


class Step(Protocol):
    """Makes better drafts of drafts."""

    @property
    def name(self) -> str:
        """What to call it in counts and messages."""
        ...

    @property
    def batch(self) -> int:
        """How many drafts it takes at once at most."""
        ...

    def __call__(self, drafts: Sequence[Draft], /) -> Sequence[Outcome]:
        """Work on some drafts, and return one outcome for each, in their order."""
        ...


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


def advance(portion: Portion, step: Step) -> Portion:
    """Take a portion one step further.

    Samples for which the step fails are set aside. A group that fails is divided and tried
    again, which finds the sample that is to blame, and a size that fits into the memory.

    Raises:
        CurationError: If all samples fail: then it is not the samples.
    """
    started = time.perf_counter()
    outcomes: list[Outcome] = []
    for first in range(0, len(portion.drafts), step.batch):
        outcomes += _attempt(step, portion.drafts[first : first + step.batch])
    errors = [each for each in outcomes if isinstance(each, Rejection) and each.reason == "error"]
    if len(errors) == len(outcomes) >= TOO_MANY:
        raise CurationError(
            f"Step {step.name}: it failed for all {len(errors)} samples of shard {portion.number}, "
            f"the last with {errors[-1].detail}."
        )
    return portion.after(step.name, outcomes, time.perf_counter() - started)


def _attempt(step: Step, drafts: Sequence[Draft]) -> Sequence[Outcome]:
    try:
        outcomes = step(drafts)
        assert len(outcomes) == len(drafts), f"{step.name}: one outcome for each draft"
        return outcomes
    except Exception as error:  # noqa: BLE001  whatever it is, the other samples can be used
        scarce = is_out_of_memory(error)
        problem = f"{type(error).__name__}: {error}"[:500]
    # Outside of the handler: the exception, which holds every tensor of the attempt, is gone.
    if scarce:
        free_memory()
    if len(drafts) == 1:
        logger.warning("%s: %s set aside (%s)", step.name, drafts[0].key, problem)
        return [set_aside(drafts[0], "error", problem)]
    middle = len(drafts) // 2
    return [*_attempt(step, drafts[:middle]), *_attempt(step, drafts[middle:])]

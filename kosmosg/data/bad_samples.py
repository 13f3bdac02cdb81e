"""What happens to a sample that cannot be used: counted, logged, skipped, and never swallowed.

The authors' readers swallow every error, so a run on damaged data looks like a run on good data.
Here each skipped sample has one of a closed set of reasons; the first of each reason is logged,
then the 10th, 100th, …, and a run whose data is mostly bad stops.
"""

import logging
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kosmosg.errors import DataError

logger = logging.getLogger(__name__)

Reason = Literal[
    "broken-shard",  # a file that cannot be opened, is no archive, or is cut off or garbled inside
    "unreadable",  # a sample whose bytes cannot be read, or are fewer than the archive says
    "metadata",  # JSON that does not parse or lacks a field, a span outside its caption
    "missing-part",  # no image where the sample needs one
    "image",  # an image that is damaged, cut off, or no image
    "image-format",  # an image in a format that is not read
    "wrong-kind",  # a sample that the stage does not read, such as an edit in stage 1
    "encoding",  # text that is not UTF-8
    "size-not-a-number",  # width or height that is noted of an image
    "too-small",  # a side below the limit
    "caption-too-long",  # in tokens of the language model, or of CLIP
    "prompt-too-long",  # text and images together
    "entity-at-start",  # the words of an entity dropped where no text stands before its image
    "empty-document",  # an interleaved document without a token
]


# What else can be done about some of them than to mend the data.
REMEDIES: dict[Reason, str] = {"too-small": "choose a smaller --min-side"}
# How the last ones went, as a state keeps it.
GOOD, BAD, EXEMPT = "0", "1", "2"


class BadSample(Exception):
    """One sample cannot be used; the reader goes on with the next."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class BadSampleLimit:
    """When bad samples stop a run; each source is held to it, and so are its shards.

    Attributes:
        share: Largest share of bad ones. Leave some room: the share in a window varies.
        window: How many of the last ones are looked at.
        minimum: How many must have been seen before.
        exempt: Reasons that are counted and logged, but not as bad: a rule that is meant to sort
            out much of a set, such as ``too-small``. A whole window of nothing usable stops a run
            whatever the reasons: it would go on for ever.
    """

    share: float = 0.2
    window: int = 1000
    minimum: int = 100
    exempt: frozenset[Reason] = frozenset()

    def __post_init__(self):
        if not (0.0 <= self.share < 1.0 and 1 <= self.minimum <= self.window):
            raise DataError(
                "A limit of bad samples takes a share from 0 to below 1, and a minimum of at "
                f"least 1 and at most the window, not {self.share}, {self.minimum} and "
                f"{self.window}."
            )


class SkipLog:
    """Counts what one source gave and what was skipped, and stops at the limit."""

    def __init__(self, source: str, limit: BadSampleLimit):
        self._source = source
        self._limit = limit
        self._window: deque[str] = deque(maxlen=limit.window)
        self.good = 0
        self.skipped: Counter[str] = Counter()

    def count_good(self) -> None:
        """Count something that was usable."""
        self.good += 1
        self._window.append(GOOD)

    def count_bad(self, fault: BadSample, where: str) -> None:
        """Count something that was skipped.

        Raises:
            DataError: If the limit is exceeded, or nothing of a whole window was usable.
        """
        self.skipped[fault.reason] += 1
        count = self.skipped[fault.reason]
        if _is_power_of_ten(count):
            logger.warning(
                "%s: skipped %d for %s, the last one at %s (%s)",
                *(self._source, count, fault.reason, where, fault.detail),
            )
        self._window.append(EXEMPT if fault.reason in self._limit.exempt else BAD)
        if len(self._window) >= self._limit.minimum:
            self._check_limit(fault, where)

    def _check_limit(self, fault: BadSample, where: str) -> None:
        bad, seen = self._window.count(BAD), len(self._window)
        told = (
            f"Skipped in all: {describe(self.skipped)}; the last one at {where} ({fault.detail})."
        )
        if bad > self._limit.share * seen:
            raise DataError(
                f"{bad} of the last {seen} of {self._source} cannot be used, more than the limit "
                f"of {self._limit.share:.0%}. {told} Mend the data, leave the source out, or raise "
                "the limit."
            )
        if seen == self._limit.window and GOOD not in self._window:
            raise DataError(
                f"None of the last {seen} of {self._source} can be used. {told} Mend the data, "
                f"leave the source out{other_remedies(self.skipped)}."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a later run needs to go on counting."""
        window = "".join(self._window)
        return {"good": self.good, "skipped": dict(self.skipped), "window": window}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from a state."""
        self.good = state["good"]
        self.skipped = Counter(state["skipped"])
        self._window.clear()
        self._window.extend(state["window"])


def describe(skipped: Mapping[str, int]) -> str:
    """Write counts by reason in words: ``3 × image, 1 × metadata``."""
    return ", ".join(f"{count} × {reason}" for reason, count in skipped.items())


def other_remedies(skipped: Mapping[str, int]) -> str:
    """Say what else could be done about them: ``, or …`` for the end of a sentence."""
    return "".join(f", or {REMEDIES[each]}" for each in REMEDIES if skipped.get(each))


def _is_power_of_ten(number: int) -> bool:
    return str(number).rstrip("0") == "1"

"""What travels through curation: records of samples, and those that become one shard together."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from kosmosg.data.bad_samples import BadSample, Reason
from kosmosg.data.schema import EncodedImage
from kosmosg.errors import CurationError

Rule = Literal[
    "too-small",  # a side below the limit
    "one-colour",  # nothing but one colour in it
    "no-caption",  # a text that is empty
    "caption-too-long",  # in tokens of the language model
    "no-entities",  # nobody sees one in the caption
    "bad-answer",  # the language model says something else than a list
    "entities-not-in-caption",  # none of them is a word or phrase of the caption
    "empty-masks",  # none of them is found in the image
]
Failure = (
    Reason  # as the readers of training data have them
    | Literal["error"]  # anything that nobody thought of
)
RULES: frozenset[str] = frozenset(get_args(Rule))
# Why one entity of several is left out; its sample stays as long as one is left.
EntityRule = Literal["not-in-caption", "colour", "cut-off", "empty-mask", "covered"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A sample in the making; each step fills in what it finds.

    Attributes:
        key: What the source calls it, such as a path or an address.
        places: Where its files lie, by what they are.
        source: Where its image is from, for those who look for its author.
        image: The central square, encoded without loss.
        caption: What is said of it.
        tags: Entities, as they stand in the caption.
        logits: For each tag, how much each part of the image looks like it.
        dropped: Entities that were left out, and why.
        files: The finished sample, as it goes into the shard.
    """

    key: str
    places: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    image: EncodedImage | None = None
    caption: str = ""
    tags: tuple[str, ...] = ()
    logits: tuple[np.ndarray, ...] = ()
    dropped: tuple[tuple[str, EntityRule], ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A sample that was set aside, by a rule or because something failed.

    Attributes:
        key: What the source calls it.
        step: Where it was; filled in on the way.
        reason: One of a closed set.
        detail: More about it.
        dropped: Entities that were left out before.
    """

    key: str
    step: str = ""
    reason: Rule | Failure
    detail: str
    dropped: tuple[tuple[str, EntityRule], ...] = ()

    @property
    def failed(self) -> bool:
        """Whether something went wrong, rather than a rule sorting it out."""
        return self.reason not in RULES


Outcome = Record | Rejection


class Rejected(Exception):
    """One sample is to be set aside; the others go on."""

    def __init__(self, reason: Rule | Failure, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason: Rule | Failure = reason
        self.detail = detail


class Listing(Protocol):
    """Says which samples a shard begins with, where it is to be known."""

    def records(self) -> list[Record]:
        """Make an empty record of each sample."""
        ...


@dataclass(frozen=True, kw_only=True)
class RecordSource:
    """Samples to be made, divided into shards.

    Attributes:
        identity: Tells apart sources with other entries.
        listings: What is in each shard, by its number.
    """

    identity: str
    listings: Sequence[Listing]


def make_source(
    kind: str, seen: Iterable[str], listings: Sequence[Listing], path: Path
) -> RecordSource:
    """Put the listings of shards together.

    Args:
        kind: Of what; part of the source's identity.
        seen: All that tells its entries from others.
        listings: Of the shards.
        path: What to call it in an error.

    Raises:
        CurationError: If there is none.
    """
    if not listings:
        raise CurationError(f"There is nothing in {path} to make samples of.")
    digest = hashlib.sha256(kind.encode())
    for each in seen:
        digest.update(b"\0" + os.fsencode(each))
    return RecordSource(identity=f"{kind}:{digest.hexdigest()[:16]}", listings=listings)


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """What one step made of a shard.

    Attributes:
        step: Its name.
        came: Records that came to it.
        kept: Records that left it.
        seconds: How long it took.
    """

    step: str
    came: int
    kept: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ShardRecords:
    """The records that become one shard together.

    Attributes:
        number: Of the shard.
        records: In the order of the source.
        set_aside: The others, in the order in which they left.
        counts: The steps so far.
    """

    number: int
    records: tuple[Record, ...]
    set_aside: tuple[Rejection, ...] = ()
    counts: tuple[StepCounts, ...] = ()

    def after(self, step: str, outcomes: Iterable[Outcome], seconds: float) -> "ShardRecords":
        """Return the shard as a step leaves it."""
        outcomes = list(outcomes)
        records = tuple(outcome for outcome in outcomes if isinstance(outcome, Record))
        aside = (replace(each, step=step) for each in outcomes if isinstance(each, Rejection))
        counts = StepCounts(step=step, came=len(self.records), kept=len(records), seconds=seconds)
        return replace(
            self,
            records=records,
            set_aside=(*self.set_aside, *aside),
            counts=(*self.counts, counts),
        )


def one_by_one(work: Callable[[Record], Record], records: Sequence[Record]) -> list[Outcome]:
    """Work on each record; those that cannot be used are set aside."""
    return [_work(work, record) for record in records]


def set_aside(record: Record, reason: Rule | Failure, detail: str) -> Rejection:
    """Set a record aside."""
    return Rejection(key=record.key, reason=reason, detail=detail, dropped=record.dropped)


def _work(work: Callable[[Record], Record], record: Record) -> Outcome:
    try:
        return work(record)
    except (Rejected, BadSample) as why:
        return set_aside(record, why.reason, why.detail)

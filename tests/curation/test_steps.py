"""Steps over shards: groups, counts, and failures that stop nobody else."""

from collections.abc import Sequence

import pytest
import torch

from kosmosg.curation.records import Outcome, Record, Rejected, ShardRecords, one_by_one
from kosmosg.curation.steps import TOO_MANY, advance
from kosmosg.data.bad_samples import BadSample
from kosmosg.errors import CurationError


class Step:
    """Notes the sizes of its groups; fails for some keys, and for groups that are too large."""

    name = "step"

    def __init__(self, batch: int = 4, bad: str = "", room: int = 100):
        self.batch, self.bad, self.room = batch, bad, room
        self.groups: list[str] = []

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        self.groups.append("".join(record.key for record in records))
        if len(records) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(record.key in self.bad for record in records):
            raise KeyError("no such thing")
        return one_by_one(self.work, records)

    def work(self, record: Record) -> Record:
        if record.key == "r":
            raise Rejected("no-caption", "nothing")
        if record.key == "b":
            raise BadSample("image", "damaged")
        return Record(key=record.key.upper())


def shard(keys: str) -> ShardRecords:
    return ShardRecords(number=3, records=tuple(Record(key=key) for key in keys))


def kept(shard: ShardRecords) -> str:
    return "".join(record.key for record in shard.records)


def test_groups_and_counts() -> None:
    step = Step()
    done = advance(shard("acrdefbgh"), step)
    assert step.groups == ["acrd", "efbg", "h"]
    assert (done.number, kept(done)) == (3, "ACDEFGH")
    assert [(each.key, each.step, each.reason) for each in done.set_aside] == [
        ("r", "step", "no-caption"),
        ("b", "step", "image"),
    ]
    assert [each.failed for each in done.set_aside] == [False, True]
    (counts,) = done.counts
    assert (counts.step, counts.came, counts.kept) == ("step", 9, 7)
    again = advance(done, Step())
    assert [each.came for each in again.counts] == [9, 7]
    assert again.set_aside == done.set_aside


def test_the_one_that_is_to_blame_is_found() -> None:
    step = Step(batch=8, bad="dg")
    done = advance(shard("acdefghi"), step)
    assert kept(done) == "ACEFHI"
    assert [(each.key, each.reason) for each in done.set_aside] == [("d", "error"), ("g", "error")]
    assert done.set_aside[0].detail == "KeyError: 'no such thing'"
    assert done.set_aside[0].failed


def test_groups_become_smaller_where_the_memory_ends() -> None:
    step = Step(batch=8, room=3)
    assert kept(advance(shard("acdefghi"), step)) == "ACDEFGHI"
    assert step.groups[:2] == ["acdefghi", "acde"]
    assert {len(group) for group in step.groups} == {8, 4, 2}


def test_a_step_that_fails_for_all_is_broken() -> None:
    keys = "acdefghi"
    assert len(keys) == TOO_MANY
    with pytest.raises(CurationError, match=r"failed for all 8 samples of shard 3.*KeyError"):
        advance(shard(keys), Step(bad=keys))
    # A few that fail may well be to blame themselves.
    assert advance(shard(keys[1:]), Step(bad=keys)).records == ()


def test_rules_may_sort_out_everything() -> None:
    done = advance(shard("r" * 20), Step())
    assert len(done.set_aside) == 20


def test_a_shard_of_nothing() -> None:
    done = advance(shard(""), Step())
    assert (done.counts[0].came, done.counts[0].kept) == (0, 0)

"""The order of training data: shuffled, shared out, resumable anywhere, and never swallowing."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmosg.data.mixing import Mixture, Source, make_sources
from kosmosg.data.samples import CaptionRules, CaptionSample, Sample, Scan, ShardGroup
from kosmosg.data.shard_writer import write_shards
from kosmosg.data.shards import open_shards
from kosmosg.data.skipping import BadSample, BadSampleLimit, SkipLog
from kosmosg.data.walk import ShardWalk
from kosmosg.errors import DataError

NO_LIMIT = BadSampleLimit(share=0.99, minimum=1000)


@dataclass(frozen=True, kw_only=True)
class FakeShard:
    """Samples that are only numbered; a negative number is a bad one."""

    name: str
    numbers: Sequence[int]
    damage: tuple[BadSample, ...] = ()
    read_numbers: list[int] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return Path(self.name)

    def scan(self) -> Scan:
        return Scan(entries=self.numbers, damage=self.damage)

    def read(self, entry: int, generator: np.random.Generator) -> Sample:
        self.read_numbers.append(entry)
        if entry < 0:
            raise BadSample("image", "torn")
        return CaptionSample(caption=f"{self.name} {entry}", image=None)


def shards(prefix: str, sizes: Sequence[int], bad: Sequence[int] = ()) -> tuple[FakeShard, ...]:
    """Make shards whose samples are numbered from 1 over all of them."""
    starts = np.cumsum([1, *sizes])
    return tuple(
        FakeShard(
            name=f"{prefix}{index}",
            numbers=[-n if n in bad else int(n) for n in range(start, start + size)],
        )
        for index, (start, size) in enumerate(zip(starts, sizes, strict=False))
    )


def label(sample: Sample, generator: np.random.Generator) -> tuple[str, float]:
    """Keep what was read and a number that was drawn for it."""
    assert isinstance(sample, CaptionSample)
    return sample.caption, float(generator.random())


def source(name: str, sizes: Sequence[int], weight: float = 1, bad: Sequence[int] = ()) -> Source:
    return Source(name=name, shards=shards(name, sizes, bad), weight=weight, prepare=label)


def three_sources(**changes) -> list[Source]:
    """Mix 2 : 2 : 1, with a few bad samples."""
    return [
        source("a", [3, 1, 4], 2, **changes),
        source("b", [5, 2], 2, **changes),
        source("c", [1], 1),
    ]


def take(mixture: Mixture, count: int) -> list:
    return list(islice(mixture, count))


def check_resuming(stop: int, seed: int, rank: int, threads: int) -> None:
    def mixture(threads: int) -> Mixture:
        sources = three_sources(bad=[2, 5])
        where: dict[str, int] = {"seed": seed, "rank": rank, "world_size": 3, "threads": threads}
        return Mixture(sources, limit=NO_LIMIT, **where)

    undisturbed = mixture(threads=0)
    wanted = take(undisturbed, stop + 20)
    stopped = mixture(threads)
    assert take(stopped, stop) == wanted[:stop]
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = mixture(threads)
    take(resumed, 3)  # What it has read before does not matter.
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert take(resumed, 20) == wanted[stop:]
    assert resumed.state_dict() == undisturbed.state_dict()
    assert resumed.skipped == undisturbed.skipped


@settings(deadline=None)
@given(stop=st.integers(0, 40), seed=st.integers(0, 5), rank=st.integers(0, 2))
def test_a_resumed_stream_goes_on_as_an_undisturbed_one(stop: int, seed: int, rank: int):
    check_resuming(stop, seed, rank, threads=0)


@pytest.mark.parametrize("stop", [0, 1, 7, 23])
def test_reading_ahead_changes_nothing(stop: int):
    check_resuming(stop, seed=0, rank=1, threads=2)


def test_real_shards_resume(tmp_path: Path):
    samples = (CaptionSample(caption=str(number), image=None) for number in range(25))
    write_shards(samples, tmp_path / "set", per_shard=7)

    def mixture() -> Mixture:
        found = open_shards(tmp_path / "set", CaptionRules(text_only=True))
        return Mixture([Source(name="set", shards=found, weight=1, prepare=label)], seed=3)

    wanted = take(mixture(), 60)
    assert {caption for caption, _ in wanted[:25]} == {str(number) for number in range(25)}
    for stop in (0, 6, 7, 8, 24, 25, 26, 40):
        stopped, resumed = mixture(), mixture()
        take(stopped, stop)
        resumed.load_state_dict(stopped.state_dict())
        assert take(resumed, 60 - stop) == wanted[stop:]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("bad", [(), (3, 4, 9)])
def test_processes_share_an_epoch_out(world_size: int, bad: tuple[int, ...]):
    sizes = [5, 1, 7, 3]
    given: list[int] = []
    for rank in range(world_size):
        files = shards("a", sizes, bad)
        one = Source(name="a", shards=files, weight=1, prepare=label)
        mixture = Mixture([one], seed=1, rank=rank, world_size=world_size, limit=NO_LIMIT)
        for caption, _ in mixture:
            if mixture.state_dict()["position"] > sum(sizes):
                break  # It is of the next epoch.
            given.append(int(caption.split()[1]))
        # Each process opens its own samples and no others.
        opened = [number for shard in files for number in shard.read_numbers]
        assert len(opened) <= -(-sum(sizes) // world_size) + 1 + len(bad)
    assert sorted(given) == sorted({*range(1, sum(sizes) + 1)} - {*bad})


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_the_number_of_processes_does_not_change_what_is_read(world_size: int):
    one = take(Mixture(three_sources(), seed=7), 120)
    several = [
        take(Mixture(three_sources(), seed=7, rank=rank, world_size=world_size), 120 // world_size)
        for rank in range(world_size)
    ]
    assert [sample for step in zip(*several, strict=True) for sample in step] == one


def test_every_epoch_gives_each_sample_once_in_another_order():
    mixture = Mixture([source("a", [5, 5, 5, 5])], seed=0)
    epochs = [[caption for caption, _ in take(mixture, 20)] for _ in range(6)]
    assert all(len(set(epoch)) == 20 and set(epoch) == set(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    # Shards are shuffled, and samples within them.
    assert len({tuple(dict.fromkeys(name.split()[0] for name in epoch)) for epoch in epochs}) > 1
    within = {tuple(name for name in epoch if name.startswith("a0")) for epoch in epochs}
    assert len(within) > 1


def test_the_seed_and_nothing_else_decides():
    first, again, other = (take(Mixture(three_sources(), seed=seed), 50) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    draws = [number for _, number in first]
    assert len(set(draws)) == len(draws)


def test_shares_follow_the_weights():
    mixture = Mixture(three_sources(), seed=0)
    counts = Counter(caption[0] for caption, _ in take(mixture, 4_000))
    for name, share in (("a", 0.4), ("b", 0.4), ("c", 0.2)):
        # Four standard deviations.
        assert abs(counts[name] / 4_000 - share) < 4 * (share * (1 - share) / 4_000) ** 0.5
    assert mixture.given == counts


def test_a_source_of_weight_0_may_lack_its_files():
    mixture = Mixture(
        [source("a", [2]), Source(name="b", shards=(), weight=0, prepare=label)], seed=0
    )
    assert {caption[0] for caption, _ in take(mixture, 50)} == {"a"}


def test_groups_share_the_weight_of_their_set():
    groups = [ShardGroup(shards=shards("g", [1]), weight=weight) for weight in (3, 1)]
    made = make_sources("set", groups, 2.0, label)
    assert [(one.name, one.weight) for one in made] == [("set/0", 1.5), ("set/1", 0.5)]
    with pytest.raises(DataError, match="weight 0"):
        make_sources("set", [ShardGroup(shards=(), weight=0)], 2.0, label)
    assert [one.weight for one in make_sources("set", [groups[0]], 0.0, label)] == [0.0]


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "nothing to mix"),
        ([source("a", [1], 0)], {}, "nothing to mix"),
        ([source("a", [1]), source("a", [2])], {}, "same name"),
        ([source("a", [1], -1)], {}, "weight -1"),
        ([source("a", [1], float("nan"))], {}, "weight nan"),
        ([source("a", [1], float("inf"))], {}, "weight inf"),
        ([source("a", [])], {}, "no files"),
        ([source("a", [1])], {"seed": -1}, "Seed -1"),
        ([source("a", [1])], {"rank": 2, "world_size": 2}, "rank 2 of 2"),
    ],
)
def test_arguments_that_do_not_fit(sources: list[Source], options: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        Mixture(sources, **{"seed": 0, **options})


@pytest.mark.parametrize(
    "other",
    [
        Mixture(three_sources(), seed=1),
        Mixture(three_sources(), seed=0, world_size=2),
        Mixture(three_sources()[:2], seed=0),
        Mixture([*three_sources()[:2], source("c", [1, 1])], seed=0),
    ],
    ids=["seed", "processes", "sources", "files"],
)
def test_a_state_of_another_run_is_refused(other: Mixture):
    with pytest.raises(DataError, match="cannot be resumed"):
        Mixture(three_sources(), seed=0).load_state_dict(other.state_dict())


def test_what_is_skipped_is_counted_by_source_and_reason():
    def refuse(sample: Sample, generator: np.random.Generator) -> str:
        assert isinstance(sample, CaptionSample)
        if sample.caption.endswith("1"):
            raise BadSample("caption-too-long", "130 tokens")
        return sample.caption

    fault = BadSample("broken-shard", "cut off")
    torn = FakeShard(name="torn", numbers=[6, 7], damage=(fault,))
    gone = FakeShard(name="gone", numbers=(), damage=(fault,))
    files = (*shards("a", [5], bad=[2]), torn, gone)
    one = Source(name="a", shards=files, weight=1, prepare=refuse)
    mixture = Mixture([one], seed=0, limit=NO_LIMIT)
    # Five of seven are good, so that twenty end in the fourth epoch.
    captions = take(mixture, 20)
    assert set(captions) == {"a0 3", "a0 4", "a0 5", "torn 6", "torn 7"}
    skipped = mixture.skipped["a"]
    assert mixture.given == {"a": 20}
    assert skipped["image"] in (3, 4) and skipped["caption-too-long"] in (3, 4)
    assert 6 <= skipped["broken-shard"] <= 8


def test_the_first_and_every_power_of_ten_is_logged(caplog: pytest.LogCaptureFixture):
    log = SkipLog("edits", NO_LIMIT)
    with caplog.at_level(logging.DEBUG):
        for number in range(1, 250):
            log.count_bad(BadSample("image", "torn"), f"0.tar, sample {number}")
        log.count_bad(BadSample("base64", "odd"), "0.tsv, sample 5")
    counts = [record.args[1] for record in caplog.records if isinstance(record.args, tuple)]
    assert counts == [1, 10, 100, 1]
    assert caplog.messages[1] == (
        "edits: skipped 10 for image, the last one at 0.tar, sample 10 (torn)"
    )


@pytest.mark.parametrize("threads", [0, 2])
def test_too_many_bad_samples_stop_the_run(threads: int):
    numbers = list(range(1, 101))
    bad = numbers[::4]
    mixture = Mixture([source("a", [100], bad=bad)], seed=0, threads=threads)
    with pytest.raises(DataError, match=r"of the last \d+ of a .* limit of 20%") as error:
        take(mixture, 10_000)
    assert "× image" in str(error.value) and "a0, sample" in str(error.value)
    mixture = Mixture([source("a", [100], bad=numbers[::10])], seed=0, threads=threads)
    assert len(take(mixture, 1000)) == 1000


def test_nothing_but_bad_samples_stops_the_run():
    with pytest.raises(DataError, match="100 of the last 100"):
        next(Mixture([source("a", [3], bad=[1, 2, 3])], seed=0))


def test_a_limit_can_leave_reasons_out():
    limit = BadSampleLimit(exempt=frozenset({"image"}))
    mixture = Mixture([source("a", [10], bad=range(1, 9))], seed=0, limit=limit)
    assert len(take(mixture, 500)) == 500
    assert mixture.skipped["a"]["image"] > 1000


def test_too_many_broken_shards_stop_the_run():
    fault = BadSample("broken-shard", "no archive")
    broken = [FakeShard(name=f"x{n}", numbers=(), damage=(fault,)) for n in range(3)]
    few = Source(name="a", shards=(*shards("a", [5]), *broken), weight=1, prepare=label)
    with pytest.raises(DataError, match=r"of the last \d+ of shards of a"):
        take(Mixture([few], seed=0), 1000)


@pytest.mark.parametrize("damage", [(BadSample("broken-shard", "no such file"),), ()])
def test_a_source_without_any_sample_stops_the_run(damage: tuple[BadSample, ...]):
    empty = [FakeShard(name=f"x{n}", numbers=(), damage=damage) for n in range(3)]
    one = Source(name="a", shards=empty, weight=1, prepare=label)
    with pytest.raises(DataError, match="no sample in any of the 3 shards of a") as error:
        next(Mixture([one], seed=0))
    assert ("no such file" if damage else "they are all empty") in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"share": 1.0}, {"share": -0.1}, {"share": np.nan}, {"minimum": 0}, {"window": 99}]
)
def test_a_limit_that_makes_no_sense(changes: dict):
    with pytest.raises(DataError, match="share from 0"):
        BadSampleLimit(**changes)


def test_a_fault_that_is_no_bad_sample_is_not_hidden():
    def fail(sample: Sample, generator: np.random.Generator) -> str:
        raise ZeroDivisionError

    for threads in (0, 2):
        one = Source(name="a", shards=shards("a", [3]), weight=1, prepare=fail)
        with pytest.raises(ZeroDivisionError):
            next(Mixture([one], seed=0, threads=threads))


def test_a_walk_looks_through_a_shard_when_it_comes_to_it():
    class Counted(FakeShard):
        def scan(self) -> Scan:
            scans.append(self.name)
            return super().scan()

    scans: list[str] = []
    files = [Counted(name=f"s{n}", numbers=[1, 2]) for n in range(4)]
    walk = ShardWalk("a", files, seed=0)
    assert not scans
    for _ in range(5):
        walk.advance()
    assert len(scans) == 3
    entered = [name for name, _ in walk.take_entered()]
    assert entered == scans and not walk.take_entered()

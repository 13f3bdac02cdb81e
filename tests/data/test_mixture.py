"""The order of training data: shuffled, shared out, resumable anywhere, and never swallowing."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmosg.data.mixture import Mixture, ReadAhead, Source
from kosmosg.data.schema import CaptionRules, CaptionSample
from kosmosg.data.shards import open_shards
from kosmosg.errors import DataError
from tests.data.fakes import NO_LIMIT, label, shards, source, take, three_sources
from tests.shards import write_shards


def check_resuming(stop: int, seed: int, rank: int, threads: int) -> None:
    def mixture(threads: int) -> Mixture:
        sources = three_sources(bad=[2, 5])
        where: dict[str, int] = {"seed": seed, "rank": rank, "world_size": 3}
        return Mixture(sources, limit=NO_LIMIT, ahead=ReadAhead(threads), **where)

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


def test_sources_are_told_apart_by_their_places():
    """Their names are for messages: a folder may be written in several ways, and be moved."""
    sources = three_sources()
    wanted = take(Mixture(sources, seed=1), 50)
    named = [replace(each, name=f"other {each.name}") for each in sources]
    assert take(Mixture(named, seed=1), 50) == wanted
    unused = Source(name="unused", shards=(), weight=0, prepare=label)
    assert take(Mixture([*sources, unused], seed=1), 50) == wanted
    # Equal sources are shuffled each in its own way.
    twins = [replace(sources[0], name=name) for name in "ab"]
    orders: dict[str, list[str]] = {"a": [], "b": []}
    mixture = Mixture(twins, seed=1)
    for _ in range(32):
        before = mixture.given
        caption, _ = next(mixture)
        orders["a" if mixture.given["a"] > before["a"] else "b"].append(caption)
    assert orders["a"][:8] != orders["b"][:8]


def test_streams_share_threads():
    ahead = ReadAhead(3, streams=2)
    assert (ahead.samples, ReadAhead(3).samples, ReadAhead(1, streams=9).samples) == (6, 12, 1)
    both = [Mixture(three_sources(), seed=seed, ahead=ahead) for seed in (1, 2)]
    found = [[next(mixture) for mixture in both] for _ in range(30)]
    alone = [take(Mixture(three_sources(), seed=seed), 30) for seed in (1, 2)]
    assert [list(pair) for pair in zip(*alone, strict=True)] == found
    assert ahead.pool is not None
    assert len(ahead.pool._threads) <= 3


def test_a_closed_stream_reads_nothing_more():
    """Neither at the end of a run nor after an error does anybody wait for what was ahead."""
    begun, go_on, read = Event(), Event(), []

    def prepare(sample: CaptionSample, _: Any) -> str:
        read.append(sample.caption)
        if len(read) > 1:
            begun.set()
            go_on.wait(60)
        return sample.caption

    one = Source(name="a", shards=shards("a", [100]), weight=1, prepare=cast(Any, prepare))
    ahead = ReadAhead(1)
    mixture = Mixture([one], seed=0, ahead=ahead)
    assert next(mixture) == read[0]
    assert begun.wait(60)
    mixture.close()
    go_on.set()
    assert ahead.pool is not None
    for thread in ahead.pool._threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(read) == 2, "the one that was being read"


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

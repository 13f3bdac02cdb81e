"""What cannot be used is counted, logged and skipped, and too much of it stops the run."""

import logging

import numpy as np
import pytest

from kosmosg.data.bad_samples import BadSample, BadSampleLimit, SkipLog
from kosmosg.data.mixture import Mixture, ReadAhead, Source
from kosmosg.data.schema import CaptionSample, Sample
from kosmosg.errors import DataError
from tests.data.fakes import NO_LIMIT, FakeShard, label, shards, source, take


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
        log.count_bad(BadSample("encoding", "odd"), "0.tar, sample 5")
    counts = [record.args[1] for record in caplog.records if isinstance(record.args, tuple)]
    assert counts == [1, 10, 100, 1]
    assert caplog.messages[1] == (
        "edits: skipped 10 for image, the last one at 0.tar, sample 10 (torn)"
    )


@pytest.mark.parametrize("threads", [0, 2])
def test_too_many_bad_samples_stop_the_run(threads: int):
    numbers = list(range(1, 101))
    bad = numbers[::4]
    mixture = Mixture([source("a", [100], bad=bad)], seed=0, ahead=ReadAhead(threads))
    with pytest.raises(DataError, match=r"of the last \d+ of a .* limit of 20%") as error:
        take(mixture, 10_000)
    assert "× image" in str(error.value) and "a0, sample" in str(error.value)
    mixture = Mixture([source("a", [100], bad=numbers[::10])], seed=0, ahead=ReadAhead(threads))
    assert len(take(mixture, 1000)) == 1000


def test_nothing_but_bad_samples_stops_the_run():
    with pytest.raises(DataError, match="100 of the last 100"):
        next(Mixture([source("a", [3], bad=[1, 2, 3])], seed=0))


def test_a_limit_can_leave_reasons_out():
    limit = BadSampleLimit(exempt=frozenset({"image"}))
    mixture = Mixture([source("a", [10], bad=range(1, 9))], seed=0, limit=limit)
    assert len(take(mixture, 500)) == 500
    assert mixture.skipped["a"]["image"] > 1000


@pytest.mark.parametrize("resumed", [False, True])
def test_a_window_without_anything_usable_stops_the_run_whatever_the_reasons(resumed: bool):
    """It would go on for ever; and the message says what to do about images that are small."""
    limit = BadSampleLimit(exempt=frozenset({"too-small"}), window=300)
    log = SkipLog("captions", limit)
    small = BadSample("too-small", "64 × 64 pixels, wanted at least 384")
    for _ in range(150):
        log.count_bad(small, "0.tar, sample 3")
    log.count_good()
    for _ in range(299):
        log.count_bad(small, "0.tar, sample 3")
    if resumed:
        state = log.state_dict()
        log = SkipLog("captions", limit)
        log.load_state_dict(state)
    with pytest.raises(DataError) as error:
        log.count_bad(small, "0.tar, sample 4")
    assert str(error.value) == (
        "None of the last 300 of captions can be used. Skipped in all: 450 × too-small; the last "
        "one at 0.tar, sample 4 (64 × 64 pixels, wanted at least 384). Mend the data, leave the "
        "source out, or choose a smaller --min-side."
    )


def test_exempt_reasons_do_not_hide_bad_samples():
    limit = BadSampleLimit(exempt=frozenset({"too-small"}))
    log = SkipLog("captions", limit)
    for _ in range(79):
        log.count_bad(BadSample("too-small", "5 × 5 pixels"), "here")
    for _ in range(20):
        log.count_bad(BadSample("image", "torn"), "here")
    log.count_bad(BadSample("too-small", "5 × 5 pixels"), "here")
    with pytest.raises(DataError, match="21 of the last 101 of captions"):
        log.count_bad(BadSample("image", "torn"), "here")


def test_too_many_broken_shards_stop_the_run():
    fault = BadSample("broken-shard", "no archive")
    broken = [FakeShard(name=f"x{n}", numbers=(), damage=(fault,)) for n in range(3)]
    few = Source(name="a", shards=(*shards("a", [5]), *broken), weight=1, prepare=label)
    with pytest.raises(DataError, match=r"of the last \d+ of shards of a"):
        take(Mixture([few], seed=0), 1000)


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
            next(Mixture([one], seed=0, ahead=ReadAhead(threads)))

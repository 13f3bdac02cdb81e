"""Intervals, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from kosmosg.evaluation.intervals import around, bootstrap_mean, bootstrap_ratio, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # z = 1.96: (0.8 + 0.19207) / 1.38415 ∓ 1.96 / 1.38415 · √(0.016 + 0.0096036), and so on
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (160, 200, 0.7391, 0.8496),
    ],
)
def test_wilson(right: int, total: int, low: float, high: float) -> None:
    found = wilson(right, total)
    assert found.value == right / total
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)
    assert found.samples == total


def test_fewer_independent_samples_are_less_sure() -> None:
    whole, pictures = wilson(800, 1000), wilson(800, 1000, samples=200)
    assert pictures == wilson(160, 200)
    assert pictures.low < whole.low < whole.high < pictures.high


def test_a_ratio_of_equals_is_one() -> None:
    counts = [(number % 3, 3) for number in range(50)]
    found = bootstrap_ratio(counts, counts)
    assert (found.value, found.low, found.high, found.samples) == (1.0, 1.0, 1.0, 50)


def test_a_ratio_of_shares() -> None:
    ours, theirs = [(1, 4), (3, 4)] * 100, [(4, 4)] * 200
    found = bootstrap_ratio(ours, theirs, seed=3)
    assert found.value == 0.5
    # The standard error of the mean of 200 numbers, each 0.25 from 0.5.
    assert found.low == pytest.approx(0.5 - 1.96 * 0.25 / math.sqrt(200), abs=4e-3)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.25 / math.sqrt(200), abs=4e-3)
    assert found == bootstrap_ratio(ours, theirs, seed=3)


def test_the_same_prompts_are_compared() -> None:
    """Where both models fail on the same prompts, the ratio is surer than the shares."""
    counts = [(number % 2, 1) for number in range(100)]
    assert bootstrap_ratio(counts, counts).low == 1.0
    assert bootstrap_ratio(counts, counts[1:] + counts[:1]).low < 0.8


def test_nothing_to_compare_with() -> None:
    found = bootstrap_ratio([(1, 1)] * 5, [(0, 1)] * 5)
    assert math.isnan(found.value)
    assert math.isnan(found.low)


def test_a_mean_over_clusters() -> None:
    """Clusters of other sizes: the mean is one of values, and whole clusters are drawn."""
    values, clusters = [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]
    found = bootstrap_mean(values, clusters)
    assert (found.value, found.samples) == (0.75, 2)
    assert (found.low, found.high) == (0.0, 1.0)


def test_values_of_a_cluster_make_a_mean_no_surer() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=50)
    once = bootstrap_mean(means, [str(n) for n in range(50)])
    often = bootstrap_mean(means.repeat(20), [str(n) for n in range(50) for _ in range(20)])
    assert often.samples == once.samples == 50
    assert often.value == pytest.approx(once.value)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    error = 1.96 * means.std() / math.sqrt(50)
    assert once.low == pytest.approx(once.value - error, abs=0.05)
    assert once.high == pytest.approx(once.value + error, abs=0.05)


def test_one_cluster_has_no_interval() -> None:
    found = bootstrap_mean([0.2, 0.4], ["a", "a"])
    assert found.value == pytest.approx(0.3)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_an_interval_around_a_number() -> None:
    found = around(10.0, [11.0, 13.0], samples=5)
    assert (found.value, found.samples) == (10.0, 5)
    assert found.high - 10.0 == pytest.approx(1.96 * math.sqrt(2), abs=1e-3)
    assert 10.0 - found.low == pytest.approx(1.96 * math.sqrt(2), abs=1e-3)

"""How sure a measured share is: 95 % intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NORMAL_95 = 1.959964  # quantile of the normal distribution for two sides of 2.5 % each
RESAMPLES = 4000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured number with its 95 % interval.

    Attributes:
        value: The number itself.
        low: Lower end of the interval.
        high: Upper end.
        samples: Number of independent samples (prompts) behind it.
    """

    value: float
    low: float
    high: float
    samples: int


def wilson(right: float, total: float, samples: int | None = None) -> Estimate:
    """Estimate a share with Wilson's score interval.

    Args:
        right: How many were right.
        total: Of how many; at least one.
        samples: How many of these are independent, all of them by default. Several attributes of
            one picture are not: with the number of pictures here the interval errs on the side
            of caution, as if all attributes of a picture were right or wrong together.
    """
    share, n = right / total, total if samples is None else samples
    z2 = NORMAL_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    spread = NORMAL_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and 1 one end is the share itself, but for rounding.
    return Estimate(
        value=share,
        low=min(share, max(0.0, centre - spread)),
        high=max(share, min(1.0, centre + spread)),
        samples=int(n),
    )


def bootstrap_ratio(
    ours: Sequence[tuple[int, int]], theirs: Sequence[tuple[int, int]], *, seed: int = 0
) -> Estimate:
    """Estimate the ratio of two shares over the same prompts, by the percentile bootstrap.

    Args:
        ours: How many were right of how many, for each prompt.
        theirs: The same of the model compared with, in the same order.
        seed: Decides the resampling.

    Returns:
        Not a number where the other share is 0.
    """
    one, other = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    assert one.shape == other.shape, (one.shape, other.shape)
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(one), size=(RESAMPLES, len(one)))
    ratios = _share(one[picks]) / _nonzero(_share(other[picks]))
    value = float(_share(one) / _nonzero(_share(other)))
    low, high = np.nanpercentile(ratios, (2.5, 97.5)) if value == value else (math.nan,) * 2
    return Estimate(value=value, low=float(low), high=float(high), samples=len(one))


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, clusters: Sequence[str], *, seed: int = 0
) -> Estimate:
    """Estimate a mean over values that belong together in clusters, by the percentile bootstrap.

    Pictures of one subject resemble each other, so whole clusters are drawn.

    Args:
        values: At least one.
        clusters: The cluster of each value.
        seed: Decides the resampling.

    Returns:
        Without an interval (not a number) if there is one cluster only.
    """
    numbers = np.asarray(values, dtype=float)
    names, members = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(members, weights=numbers), np.bincount(members)
    picks = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5)) if len(names) > 1 else (math.nan, math.nan)
    return Estimate(
        value=float(numbers.mean()), low=float(low), high=float(high), samples=len(names)
    )


def around(value: float, resampled: Sequence[float], samples: int) -> Estimate:
    """Set an interval around a number, as wide as it scatters when it is resampled.

    For what resampling moves to one side, such as a Fréchet distance, which grows with repeated
    pictures: the scatter says how sure the number is, the place of the resampled ones does not.
    """
    spread = NORMAL_95 * float(np.std(resampled, ddof=1))
    return Estimate(value=value, low=value - spread, high=value + spread, samples=samples)


def _share(counts: np.ndarray) -> np.ndarray:
    right, total = counts.sum(axis=-2).T
    return right / _nonzero(total)


def _nonzero(numbers: np.ndarray) -> np.ndarray:
    return np.where(numbers == 0, np.nan, numbers)

"""Scores as functions of features, which know neither images nor networks, with 95 % intervals.

Similarities are cosines, as the paper prints them; the authors' scripts say a hundred times that.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional

from kosmosg.errors import EvaluationError
from kosmosg.evaluation.protocol import ImageJob

NORMAL_95 = 1.959964  # quantile of the normal distribution for two sides of 2.5 % each
RESAMPLES = 4000
FID_RESAMPLES = 30  # they say how wide an interval is to an eighth
# Rows whose sums are added up at once, in float64: 32 MB of Inception's features.
ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured number with its 95 % interval.

    Attributes:
        value: The number itself.
        low: Lower end of the interval; not a number if there is none, as is the upper one.
        high: Upper end.
        samples: Number of independent samples (prompts, subjects) behind it.
    """

    value: float
    low: float
    high: float
    samples: int


# A part of a score stands behind it: "DINO", then "DINO/subject/cat".
Finding = tuple[str, Estimate]


def cosines(
    features: Float[Tensor, "rows dim"], others: Float[Tensor, "rows dim"]
) -> Float64[np.ndarray, " rows"]:
    """Compare row by row, from -1 to 1."""
    one, other = (functional.normalize(each.double(), dim=-1) for each in (features, others))
    return (one * other).sum(dim=-1).cpu().numpy()


def mean_score(scores: Float64[np.ndarray, " rows"], clusters: Sequence[str]) -> Estimate:
    """Average similarities; the mean alone is kept from falling below zero, no single one."""
    mean = bootstrap_mean(scores, clusters)
    # max(nan, 0.0) is nan.
    return replace(
        mean, value=max(mean.value, 0.0), low=max(mean.low, 0.0), high=max(mean.high, 0.0)
    )


def summarise(
    scores: Mapping[str, Float64[np.ndarray, " rows"]], jobs: Sequence[ImageJob]
) -> Iterator[Finding]:
    """Average the similarities of all images, of each kind of prompt and of each subject.

    Subjects are what is resampled for the intervals, and the prompts for those of one subject.
    """
    subjects = [job.subject for job in jobs]
    for name, values in scores.items():
        yield name, mean_score(values, subjects)
        for kind in dict.fromkeys(job.kind for job in jobs):
            rows = [n for n, job in enumerate(jobs) if job.kind == kind]
            yield f"{name}/kind/{kind}", mean_score(values[rows], [subjects[n] for n in rows])
        for subject in dict.fromkeys(subjects):
            rows = [n for n, each in enumerate(subjects) if each == subject]
            prompts = [jobs[n].text for n in rows]
            yield f"{name}/subject/{subject}", mean_score(values[rows], prompts)


class FrechetDistance:
    """The distance of images to a fixed set of photographs, in the space of some features.

    torchmetrics adds up means and covariances in float64 and takes the root of their product.
    """

    def __init__(self, real: Float[Tensor, "photographs dim"], device: torch.device):
        check_libraries()
        from torchmetrics.image.fid import FrechetInceptionDistance

        _check_rows(real, "photographs")
        # One process has all features, and asks no other for its own.
        self._metric = FrechetInceptionDistance(
            feature=_AsGiven(real.shape[1]), reset_real_features=False, sync_on_compute=False
        ).to(device)
        self._update(real, real=True)

    def to(self, generated: Float[Tensor, "images dim"]) -> float:
        """Measure how far images are from the photographs."""
        _check_rows(generated, "images")
        self._metric.reset()  # of the photographs nothing
        self._update(generated, real=False)
        return float(self._metric.compute())

    def estimate(self, generated: Float[Tensor, "images dim"], seed: int = 0) -> Estimate:
        """Measure it with an interval, for which the images are resampled, not the photographs.

        Resampled images repeat, which moves the distance upwards: only how much the resampled
        ones scatter says how sure the number is, so the interval stands around the number itself.

        Args:
            generated: Features of the images.
            seed: Decides the resampling.
        """
        rng, rows = np.random.default_rng(seed), len(generated)
        resampled = [
            self.to(generated[torch.from_numpy(rng.integers(rows, size=rows))])
            for _ in range(FID_RESAMPLES)
        ]
        value, spread = self.to(generated), NORMAL_95 * float(np.std(resampled, ddof=1))
        return Estimate(value=value, low=value - spread, high=value + spread, samples=rows)

    def _update(self, features: Float[Tensor, "rows dim"], *, real: bool) -> None:
        for part in features.split(ROWS):
            self._metric.update(part.double().to(self._metric.device), real=real)


def check_libraries() -> None:
    """Check for what comes with an extra of its own, before images are generated for weeks.

    Raises:
        EvaluationError: If it is not installed.
    """
    missing = [name for name in ("scipy", "torchmetrics") if find_spec(name) is None]
    if missing:
        raise EvaluationError(
            f"Evaluation needs {' and '.join(missing)}. Install what belongs to it, in the folder "
            "of the project: pip install -e '.[eval]'."
        )


def wilson(right: float, total: float, samples: int | None = None) -> Estimate:
    """Estimate a share with Wilson's score interval.

    scipy has it for whole numbers, and the share of fewer independent samples is none.

    Args:
        right: How many were right.
        total: Of how many; at least one.
        samples: How many of these are independent, all of them by default. Several attributes of
            one image are not: with the number of images here the interval errs on the side of
            caution, as if all attributes of an image were right or wrong together.
    """
    share, n = right / total, total if samples is None else samples
    z2 = NORMAL_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    spread = NORMAL_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and 1 one end is the share itself, but for rounding.
    low, high = min(share, max(0.0, centre - spread)), max(share, min(1.0, centre + spread))
    return Estimate(value=share, low=low, high=high, samples=int(n))


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, clusters: Sequence[str], *, seed: int = 0
) -> Estimate:
    """Estimate a mean over values that belong together in clusters, by the percentile bootstrap.

    Images of one subject resemble each other, so whole clusters are resampled.

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

    def mean(sums: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
        return sums.sum(axis) / counts.sum(axis)

    low, high = _percentiles((sums, counts), mean, seed)
    return Estimate(value=float(numbers.mean()), low=low, high=high, samples=len(names))


def bootstrap_ratio(
    ours: Sequence[tuple[int, int]], theirs: Sequence[tuple[int, int]], *, seed: int = 0
) -> Estimate:
    """Estimate the ratio of two shares over the same prompts, by the percentile bootstrap.

    Args:
        ours: How many were right of how many, for each prompt.
        theirs: The same of the model compared with, in the same order.
        seed: Decides the resampling.

    Returns:
        Not a number where the other share is 0; without an interval for one prompt only.
    """
    counts = np.array([ours, theirs], dtype=float)  # (model, prompt, right and total)
    right, total, other_right, other_total = (*counts[0].T, *counts[1].T)

    def ratio(right: Any, total: Any, other_right: Any, other_total: Any, axis: int = -1) -> Any:
        other = other_right.sum(axis) / other_total.sum(axis)
        return right.sum(axis) / total.sum(axis) / np.where(other == 0, math.nan, other)

    data = (right, total, other_right, other_total)
    value = float(ratio(*data))
    low, high = (value, value) if math.isnan(value) else _percentiles(data, ratio, seed)
    return Estimate(value=value, low=low, high=high, samples=len(right))


def _percentiles(
    data: Sequence[np.ndarray], statistic: Callable[..., Any], seed: int
) -> tuple[float, float]:
    """Resample rows of data together, and find the middle 95 % of a statistic of them.

    One row has no interval.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    if len(data[0]) < 2:
        return math.nan, math.nan
    with warnings.catch_warnings():
        # A resample whose statistic is not a number is left out below.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            data,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = np.nanpercentile(found.bootstrap_distribution, (2.5, 97.5))
    return float(low), float(high)


class _AsGiven(nn.Module):
    """Stands where torchmetrics expects a network: the features are there already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features  # where torchmetrics looks

    def forward(self, features: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
        return features


def _check_rows(features: Tensor, what: str) -> None:
    if len(features) < 2:
        raise EvaluationError(
            f"A Fréchet distance needs at least 2 {what}, and there is {len(features)}."
        )

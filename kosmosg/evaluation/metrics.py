"""Scores as functions of features, which know neither pictures nor networks.

Similarities are cosines, as the paper prints them; the authors' scripts say a hundred times that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional

from kosmosg.errors import EvaluationError
from kosmosg.evaluation.evaluator import Finding, Job
from kosmosg.evaluation.intervals import Estimate, around, bootstrap_mean

# Rows whose sums are added up at once, in float64: 32 MB of Inception's features.
ROWS = 2048
FID_RESAMPLES = 30  # they say how wide an interval is to an eighth


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
    scores: Mapping[str, Float64[np.ndarray, " rows"]], jobs: Sequence[Job]
) -> Iterator[Finding]:
    """Average the similarities of all pictures, of each kind of prompt and of each subject.

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
    """The distance of pictures to a fixed set of photographs, in the space of some features.

    torchmetrics adds up means and covariances in float64 and takes the root of their product.
    """

    def __init__(self, real: Float[Tensor, "photographs dim"], device: torch.device):
        check_torchmetrics()
        from torchmetrics.image.fid import FrechetInceptionDistance

        _check_rows(real, "photographs")
        # One process has all features, and asks no other for its own.
        self._metric = FrechetInceptionDistance(
            feature=_AsGiven(real.shape[1]), reset_real_features=False, sync_on_compute=False
        ).to(device)
        self._update(real, real=True)

    def to(self, drawn: Float[Tensor, "pictures dim"]) -> float:
        """Measure how far pictures are from the photographs."""
        _check_rows(drawn, "pictures")
        self._metric.reset()  # of the photographs nothing
        self._update(drawn, real=False)
        return float(self._metric.compute())

    def estimate(self, drawn: Float[Tensor, "pictures dim"], seed: int = 0) -> Estimate:
        """Measure it with an interval, for which the pictures are resampled, not the photographs.

        Args:
            drawn: Features of the pictures.
            seed: Decides the resampling.
        """
        rng = np.random.default_rng(seed)
        resampled = [
            self.to(drawn[torch.from_numpy(rng.integers(len(drawn), size=len(drawn)))])
            for _ in range(FID_RESAMPLES)
        ]
        return around(self.to(drawn), resampled, samples=len(drawn))

    def _update(self, features: Float[Tensor, "rows dim"], *, real: bool) -> None:
        for part in features.split(ROWS):
            self._metric.update(part.double().to(self._metric.device), real=real)


def check_torchmetrics() -> None:
    """Check for what comes with an extra of its own.

    Raises:
        EvaluationError: If it is not installed.
    """
    if find_spec("torchmetrics") is None:
        raise EvaluationError(
            "FID needs torchmetrics. Install what belongs to evaluation, in the folder of the "
            "project: pip install -e '.[eval]'."
        )


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

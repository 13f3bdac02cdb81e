"""Trials in turns, medians, ratios and their spread, and how much a picture changed."""

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

SHORTEST = 0.1  # seconds that a timed stretch should last: below, the clock's own work shows

T = TypeVar("T")


class NotMeasured(Exception):
    """Something cannot be measured here; the message is the reason, which goes into the table."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a row of the table says.

    Attributes:
        values: What was measured, one value per round, in the row's unit.
        baselines: The same of the row's baseline, from the same rounds.
        psnr: In dB against the plain path, infinite if nothing differs; ``None`` if nothing is
            drawn.
        note: What else the reader should know.
        reason: Why there are no values.
    """

    values: tuple[float, ...] = ()
    baselines: tuple[float, ...] = ()
    psnr: float | None = None
    note: str = ""
    reason: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Round by round: a machine that slows down slows both."""
        return tuple(v / b for v, b in zip(self.values, self.baselines, strict=True))

    @property
    def ratio(self) -> float:
        """Median of the ratios."""
        return median(self.ratios)


def not_measured(reason: str) -> Measurement:
    """Make a row that only says why it is empty."""
    return Measurement(reason=reason)


def interleave(
    trials: Mapping[str, Callable[[], T]], rounds: int, warm_ups: int = 1
) -> dict[str, list[T]]:
    """Let all trials take turns, forwards and backwards, so that a drift meets all alike.

    Args:
        trials: By name, each measures once and returns what it found.
        rounds: Number of results of each.
        warm_ups: Rounds before these, whose results are thrown away.

    Returns:
        Results by name, in the order of the rounds.
    """
    results: dict[str, list[T]] = {name: [] for name in trials}
    for number in range(-warm_ups, rounds):
        for name in list(trials)[:: 1 if number % 2 == 0 else -1]:
            gc.collect()  # so that no trial pays for what another left behind
            result = trials[name]()
            if number >= 0:
                results[name].append(result)
    return results


class Timed:
    """A trial: seconds per call of a function, of as many calls as fill ``SHORTEST``."""

    def __init__(self, function: Callable[[], Any], device: torch.device):
        self.function = function
        self.device = device
        self.calls = 1

    def __call__(self) -> float:
        """Measure once."""
        synchronise(self.device)
        start = time.perf_counter()
        for _ in range(self.calls):
            self.function()
        synchronise(self.device)
        seconds = (time.perf_counter() - start) / self.calls
        self.calls = max(1, math.ceil(SHORTEST / seconds))
        return seconds


def synchronise(device: torch.device) -> None:
    """Wait for the device, so that the clock measures the work and not its queueing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def psnr_of_pictures(picture: Image.Image, reference: Image.Image) -> float:
    """Peak signal-to-noise ratio of two 8-bit pictures, in dB."""
    arrays = [np.asarray(each, dtype=np.float64) for each in (picture, reference)]
    return psnr(arrays[0], arrays[1], peak=255.0)


def psnr_of_tensors(tensor: torch.Tensor, reference: torch.Tensor) -> float:
    """The same of two tensors; the peak is the range of the reference's values."""
    arrays = [each.detach().double().cpu().numpy() for each in (tensor, reference)]
    return psnr(arrays[0], arrays[1], peak=float(np.ptp(arrays[1])))


def psnr(values: np.ndarray, reference: np.ndarray, peak: float) -> float:
    """Peak signal-to-noise ratio in dB, infinite if nothing differs."""
    error = float(np.mean((values - reference) ** 2))
    return 10 * math.log10(peak**2 / error) if error > 0 else math.inf

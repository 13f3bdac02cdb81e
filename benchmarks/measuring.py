"""Trials in turns, the ratio of two of them, and the table."""

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

T = TypeVar("T")

HEADER = """\
| what | baseline | measured | baseline | ratio (from – to) | PSNR |
|---|---|---:|---:|---:|---:|"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table.

    Attributes:
        title: What was measured.
        baseline: What it is divided by.
        values: One per round, in ``unit``.
        baselines: The same of the baseline, from the same rounds.
        unit: "s", "GB" or "TFLOP/s".
        psnr: In dB, of what both made from the same noise; infinite if nothing differs, ``None`` if
            there is nothing to compare.
        note: What else the reader should know.
        missing: Why there are no values.
    """

    title: str
    baseline: str
    values: tuple[float, ...] = ()
    baselines: tuple[float, ...] = ()
    unit: str = "s"
    psnr: float | None = None
    note: str = ""
    missing: str = ""

    @property
    def ratios(self) -> list[float]:
        """Round by round, since a machine that slows down slows both."""
        return [value / base for value, base in zip(self.values, self.baselines, strict=True)]

    def __str__(self) -> str:
        """The row as Markdown; times and ratios are medians."""
        title = f"{self.title} ({self.note})" if self.note else self.title
        if self.missing:
            return f"| {title} | {self.baseline} | not measured: {self.missing} | | | |"
        measured, base = (_in_unit(median(v), self.unit) for v in (self.values, self.baselines))
        ratio = f"**{median(self.ratios):.3g}** ({min(self.ratios):.3g} – {max(self.ratios):.3g})"
        psnr = "" if self.psnr is None else _in_decibels(self.psnr)
        return f"| {title} | {self.baseline} | {measured} | {base} | {ratio} | {psnr} |"


def take_turns(
    trials: Mapping[str, Callable[[], T]], rounds: int, warm_ups: int = 1
) -> dict[str, list[T]]:
    """Run all trials in every round, forwards and backwards, so that a drift meets all alike.

    Args:
        trials: By name; each measures once and returns what it found.
        rounds: Number of results of each.
        warm_ups: Rounds before these, whose results are thrown away.
    """
    results: dict[str, list[T]] = {name: [] for name in trials}
    for number in range(-warm_ups, rounds):
        for name in list(trials)[:: 1 if number % 2 == 0 else -1]:
            gc.collect()  # so that no trial pays for what another left behind
            result = trials[name]()
            if number >= 0:
                results[name].append(result)
    return results


def psnr_of_images(image: Image.Image, reference: Image.Image) -> float:
    """Peak signal-to-noise ratio of two 8-bit images, in dB."""
    return _psnr(np.asarray(image, np.float64), np.asarray(reference, np.float64), 255.0)


def psnr_of_tensors(tensor: Tensor, reference: Tensor) -> float:
    """The same of two tensors; the peak is the range of the reference's values."""
    values, wanted = (each.detach().double().cpu().numpy() for each in (tensor, reference))
    return _psnr(values, wanted, float(np.ptp(wanted)))


def _psnr(values: np.ndarray, reference: np.ndarray, peak: float) -> float:
    error = float(np.square(values - reference).mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _in_unit(value: float, unit: str) -> str:
    return f"{value * 1000:.3g} ms" if unit == "s" and value < 1 else f"{value:.3g} {unit}"


def _in_decibels(psnr: float) -> str:
    return "identical" if psnr == math.inf else f"{psnr:.0f} dB"

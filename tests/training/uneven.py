"""Training on batches in which one process has images and the other has none."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from kosmosg.diffusion import sampling
from kosmosg.errors import WeightsError
from kosmosg.training.loop import train
from kosmosg.training.options import LoopOptions
from kosmosg.training.starting_weights import StartingWeights
from tests.training.sharding import sharding
from tests.training.stages.examples import instruct_stage, lm_stage, prompts, sequences
from tests.training.toy import ToyStream


class Alternating(ToyStream):
    """Gives samples of two kinds in turn; of two processes, each has a kind of its own."""

    def __init__(self, samples: Sequence[Any], rank: int, processes: int):
        super().__init__(rank, processes)
        self._samples = samples

    def __next__(self) -> Any:
        return self._samples[super().__next__() % len(self._samples)]


def train_where_one_cannot_sample(weights: Path, options: LoopOptions) -> None:
    """Train on shards, of which one process makes images that are not finite, the first time."""

    def denoise(*arguments: Any) -> Any:
        latents = original(*arguments)
        if failures and os.environ["RANK"] == "1":
            raise failures.pop()
        return latents

    original, failures = sampling.denoise, [WeightsError("not finite")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "denoise", denoise)
        train_uneven(weights, "instruct", options, sharded=True)


def train_uneven(weights: Path, stage: str, options: LoopOptions, sharded: bool = False) -> None:
    """Train on texts at even places and on images at odd ones."""
    start = StartingWeights(directory=weights)
    folder = StartingWeights(directory=weights.parent / "start")  # beside which the data are
    if stage == "lm":
        kinds = [sequences(folder, name, count=6, tokens=24) for name in ("text", "captions")]
    else:
        kinds = [prompts(folder, name, count=6) for name in ("captions", "edits")]
    samples = [sample for pair in zip(*kinds, strict=True) for sample in pair]
    build = lm_stage if stage == "lm" else instruct_stage
    with sharding() if sharded else nullcontext():
        train(
            lambda: build(start),
            lambda rank, processes: Alternating(samples, rank, processes),
            options,
        )

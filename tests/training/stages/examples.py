"""Samples of the small world as the stages read them."""

from pathlib import Path
from typing import Any

import torch

from kosmosg.checkpoints.stable_diffusion import load_scheduler
from kosmosg.data.options import EntityOptions, NamedData
from kosmosg.models.aligner import Reconstruction
from kosmosg.training import setup
from kosmosg.training.data import TrainingData
from kosmosg.training.stages.align import AlignStage
from kosmosg.training.stages.common import SeededSample, with_seed
from kosmosg.training.stages.instruct import InstructStage
from kosmosg.training.stages.lm import LanguageStage
from kosmosg.training.starting_weights import StartingWeights, load_decoder, load_text_encoder


def data(folder: Path, *names: str) -> TrainingData:
    named = tuple(NamedData(path=folder / "data" / name) for name in names)
    return TrainingData(data=named, min_side=64, threads=0)


def prompts(
    start: StartingWeights, *names: str, count: int, **changes: float
) -> list[SeededSample]:
    """Take samples of stage 3."""
    drop_caption = changes.pop("drop_caption", 0.5)
    prepare = setup._prepare_prompts(start, EntityOptions(**changes), drop_caption)
    stream = data(start.directory.parent, *names).mixture(with_seed(prepare), 0, 1)
    return [next(stream) for _ in range(count)]


def captions(start: StartingWeights, count: int) -> list[SeededSample]:
    """Take samples of stage 2."""
    prepare = setup._prepare_captions(start, None)
    options = data(start.directory.parent, "captions")
    stream = options.mixture(with_seed(prepare), 0, 1, text_only=True)
    return [next(stream) for _ in range(count)]


def sequences(start: StartingWeights, *names: str, count: int, tokens: int = 64) -> list[Any]:
    """Take samples of stage 1."""
    prepare = setup._prepare_documents(start, tokens)
    stream = data(start.directory.parent, *names).packed(prepare, 0, 1, tokens=tokens, streams=1)
    return [next(stream) for _ in range(count)]


def lm_stage(start: StartingWeights) -> LanguageStage:
    return LanguageStage(start.kosmosg(), start.tokenizer(), start.directory)


def align_stage(start: StartingWeights, **options: Any) -> AlignStage:
    kosmosg = start.kosmosg()
    return AlignStage(
        kosmosg,
        Reconstruction(kosmosg.config.aligner_config),
        *load_text_encoder(start.directory, None),
        start.directory,
        **options,
    )


def instruct_stage(start: StartingWeights, **options: Any) -> InstructStage:
    config = dict(load_scheduler(start.directory / "scheduler").config)
    decoder = load_decoder(start.directory)
    return InstructStage(start.kosmosg(), *decoder, config, start.directory, **options)


def images(count: int, seed: int) -> torch.Tensor:
    """Draw noise in [-1, 1]."""
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1

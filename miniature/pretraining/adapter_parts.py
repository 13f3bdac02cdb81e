"""Train a LoRA or a ControlNet for a decoder that is there, on captioned pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kosmosg.checkpoints.stable_diffusion import encode_captions, load_scheduler
from kosmosg.diffusion.control_maps import canny
from kosmosg.errors import TrainingError
from kosmosg.training.checkpoints import check_known_settings, hold_run
from kosmosg.training.data import TrainingData
from kosmosg.training.loop import train
from kosmosg.training.noise import Diffusion
from kosmosg.training.options import LoopOptions
from kosmosg.training.stage import Stage, Stream
from kosmosg.training.starting_weights import load_decoder, load_text_encoder
from kosmosg.utils.fingerprint import fingerprint
from kosmosg.utils.processes import find_processes
from miniature.pretraining.adapters import ControlNetStage, LoraStage
from miniature.pretraining.latents import LatentStream, MapMaker, encode_pictures

# Kinds whose maps need no network.
MAPS: dict[str, MapMaker] = {"canny": canny}
PARTS = ("unet", "vae", "scheduler", "text_encoder")  # what the result depends on


def train_lora(decoder: Path, data: TrainingData, options: LoopOptions, *, rank: int) -> Path:
    """Train a LoRA of the U-Net's attention.

    Args:
        decoder: Folder of a Stable Diffusion, or a weights directory with CLIP's text encoder.
        data: Captioned pictures; each is encoded once.
        options: How to train.
        rank: Of the corrections, 1 to 256.

    Raises:
        TrainingError: If the rank is out of bounds.
        WeightsError: If the decoder cannot be opened.
    """
    if not 1 <= rank <= 256:
        raise TrainingError(f"--rank is {rank}; it must be from 1 to 256.")

    def build(parts: tuple[Any, ...]) -> Stage:
        return LoraStage(*parts, rank=rank)

    return _train(decoder, data, options, build, {"rank": rank})


def train_controlnet(decoder: Path, data: TrainingData, options: LoopOptions, *, kind: str) -> Path:
    """Train a ControlNet.

    Args:
        decoder: See ``train_lora``.
        data: Captioned pictures; each is encoded, and its map made, once.
        options: How to train.
        kind: Of the maps; a key of ``MAPS``.

    Raises:
        TrainingError: If maps of this kind cannot be made in training.
        WeightsError: If the decoder cannot be opened.
    """
    if kind not in MAPS:
        raise TrainingError(f"--kind is {kind!r}; maps can be made of {', '.join(MAPS)}.")

    def build(parts: tuple[Any, ...]) -> Stage:
        return ControlNetStage(*parts)

    return _train(decoder, data, options, build, {"kind": kind}, MAPS[kind])


def _train(
    decoder: Path,
    data: TrainingData,
    options: LoopOptions,
    build: Callable[[tuple[Any, ...]], Stage],
    settings: dict[str, Any],
    make_map: MapMaker | None = None,
) -> Path:
    """Encode the pictures, and train what ``build`` puts around the frozen networks."""
    source = None if (decoder / "clip_tokenizer").is_dir() else str(decoder)
    encoder, tokenizer = load_text_encoder(decoder, source)
    parts = {name: fingerprint(decoder / name) for name in PARTS}
    settings = {**settings, "decoder": parts, **data.identity()}
    with hold_run(options.output):
        check_known_settings(options.output, settings)
        _, vae = load_decoder(decoder)
        encoded = _encode(vae, tokenizer, data, options, make_map)
        scheduler = load_scheduler(decoder / "scheduler")

        def build_stage() -> Stage:
            unet, _ = load_decoder(decoder)
            diffusion = Diffusion(dict(scheduler.config), vae.config["scaling_factor"])
            return build((unet, encoder, encode_captions(tokenizer, [""])[0], diffusion))

        def open_stream(rank: int, processes: int) -> Stream:
            return LatentStream(encoded, seed=data.seed, rank=rank, world_size=processes)

        return train(build_stage, open_stream, options, settings)


def _encode(
    vae: Any, tokenizer: Any, data: TrainingData, options: LoopOptions, make_map: MapMaker | None
) -> dict[str, Tensor]:
    state = find_processes()
    with state.main_process_first(), torch.inference_mode():  # the others read what it has written
        return encode_pictures(
            data.shards(),
            vae.to(state.device),
            tokenizer,
            options.output / "latents.safetensors",
            limit=data.limit,
            min_side=data.min_side,
            bfloat16=options.precision == "bf16",
            make_map=make_map,
        )

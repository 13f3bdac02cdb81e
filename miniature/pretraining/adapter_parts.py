"""Train a LoRA or a ControlNet for a decoder that is there, on captioned images."""

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
from miniature.pretraining.latents import LatentStream, MapMaker, encode_images
from miniature.pretraining.options import AdapterTrainingOptions, ControlNetOptions, LoraOptions

# Kinds whose maps need no network.
MAPS: dict[str, MapMaker] = {"canny": canny}
PARTS = ("unet", "vae", "scheduler", "text_encoder")  # what the result depends on


def train_lora(options: LoraOptions) -> Path:
    """Train a LoRA of the U-Net's attention.

    Raises:
        WeightsError: If the decoder cannot be opened.
    """

    def build(parts: tuple[Any, ...]) -> Stage:
        return LoraStage(*parts, rank=options.rank)

    return _train(options, build, {"rank": options.rank})


def train_controlnet(options: ControlNetOptions) -> Path:
    """Train a ControlNet.

    Raises:
        TrainingError: If maps of this kind cannot be made in training.
        WeightsError: If the decoder cannot be opened.
    """
    kind = options.kind
    if kind not in MAPS:
        raise TrainingError(f"--kind is {kind!r}; maps can be made of {', '.join(MAPS)}.")

    def build(parts: tuple[Any, ...]) -> Stage:
        return ControlNetStage(*parts)

    return _train(options, build, {"kind": kind}, MAPS[kind])


def _train(
    options: AdapterTrainingOptions,
    build: Callable[[tuple[Any, ...]], Stage],
    settings: dict[str, Any],
    make_map: MapMaker | None = None,
) -> Path:
    """Encode the images, and train what ``build`` puts around the frozen networks."""
    decoder, loop = options.decoder, options.loop
    data = TrainingData.of(options.data, loop)
    source = None if (decoder / "clip_tokenizer").is_dir() else str(decoder)
    encoder, tokenizer = load_text_encoder(decoder, source)
    parts = {name: fingerprint(decoder / name) for name in PARTS}
    settings = {**settings, "decoder": parts, **data.identity()}
    with hold_run(loop.output):
        check_known_settings(loop.output, settings)
        _, vae = load_decoder(decoder)
        encoded = _encode(vae, tokenizer, data, loop, make_map)
        scheduler = load_scheduler(decoder / "scheduler")

        def build_stage() -> Stage:
            unet, _ = load_decoder(decoder)
            diffusion = Diffusion(dict(scheduler.config), vae.config["scaling_factor"])
            return build((unet, encoder, encode_captions(tokenizer, [""])[0], diffusion))

        def open_stream(rank: int, processes: int) -> Stream:
            return LatentStream(encoded, seed=data.seed, rank=rank, world_size=processes)

        return train(build_stage, open_stream, loop, settings)


def _encode(
    vae: Any, tokenizer: Any, data: TrainingData, loop: LoopOptions, make_map: MapMaker | None
) -> dict[str, Tensor]:
    state = find_processes()
    with state.main_process_first(), torch.inference_mode():  # the others read what it has written
        return encode_images(
            data.shards(),
            vae.to(state.device),
            tokenizer,
            loop.output / "latents.safetensors",
            limit=data.limit,
            min_side=data.min_side,
            bfloat16=loop.precision == "bf16",
            make_map=make_map,
        )

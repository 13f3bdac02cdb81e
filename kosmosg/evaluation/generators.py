"""Models as plain functions: prompts, their pictures and seeds in, pictures out.

Both go through the same decoding, so that a comparison is one of conditions alone: same noise,
sampler, steps and guidance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel

from kosmosg.config import DEFAULT_SAMPLER
from kosmosg.models.loading import load_component
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.sampling import Request, draw_noise, sample
from kosmosg.schedulers import make_scheduler
from kosmosg.stable_diffusion import load_clip_tokenizer, load_scheduler, make_decoder

Generate = Callable[
    [Sequence[str], Sequence[Sequence[Image.Image]], Sequence[int]], list[Image.Image]
]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How pictures are drawn, the same for all models."""

    steps: int
    guidance_scale: float
    scheduler: str = DEFAULT_SAMPLER


def kosmosg_generator(pipeline: KosmosGPipeline, sampling: Sampling) -> Generate:
    """Draw with KOSMOS-G; every seed draws its picture as the pipeline itself does."""
    decoder = pipeline.decoder_with(sampling.scheduler)

    def generate(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        condition, negative = pipeline.encode_prompt(list(prompts), list(images))
        return _draw(decoder, condition, negative, seeds, sampling)

    return generate


def clip_generator(
    directory: Path, sampling: Sampling, *, device: torch.device, dtype: torch.dtype
) -> Generate:
    """Draw with the frozen decoder and its own CLIP, as Stable Diffusion does.

    Args:
        directory: Weights directory that also holds ``text_encoder`` and ``clip_tokenizer``.
        sampling: How to draw.
        device: Where to.
        dtype: Precision.

    Raises:
        WeightsError: If a part is missing or damaged.
    """
    scheduler = make_scheduler(sampling.scheduler, load_scheduler(directory / "scheduler").config)
    decoder = make_decoder(
        load_component(UNet2DConditionModel, directory / "unet", dtype=dtype),
        load_component(AutoencoderKL, directory / "vae", dtype=dtype),
        scheduler,
    )
    decoder.register_modules(
        text_encoder=load_component(CLIPTextModel, directory / "text_encoder", dtype=dtype),
        tokenizer=load_clip_tokenizer(directory / "clip_tokenizer"),
    )
    decoder.to(device)

    @torch.inference_mode()
    def generate(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        assert not any(images), "CLIP's text encoder takes no pictures"
        condition, negative = decoder.encode_prompt(list(prompts), device, 1, True)
        assert negative is not None, "guidance was asked for"
        return _draw(decoder, condition, negative, seeds, sampling)

    return generate


@torch.inference_mode()
def _draw(
    decoder: StableDiffusionPipeline,
    condition: Float[Tensor, "batch queries dim"],
    negative: Float[Tensor, "batch queries dim"],
    seeds: Sequence[int],
    sampling: Sampling,
) -> list[Image.Image]:
    config = decoder.unet.config
    request = Request(
        condition=condition,
        negative=negative,
        noise=draw_noise(seeds, config.in_channels, config.sample_size, config.sample_size),
        steps=sampling.steps,
        guidance_scale=sampling.guidance_scale,
    )
    return sample(decoder, request)[0]

"""Conditions in other pipelines of diffusers, as README shows it."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    MotionAdapter,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    UNet2DConditionModel,
)

from kosmosg import KosmosGPipeline
from tests.diffusion.generation import noise_image

SETTINGS: dict[str, Any] = {"num_inference_steps": 2, "width": 64, "height": 64}


@pytest.fixture
def embeds(pipe: KosmosGPipeline) -> dict[str, torch.Tensor]:
    condition, negative = pipe.encode_prompt("<i> on the beach", [noise_image()])
    return {"prompt_embeds": condition, "negative_prompt_embeds": negative}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_animate_diff(pipe: KosmosGPipeline, embeds: dict[str, torch.Tensor]) -> None:
    unet = pipe.unet
    adapter = MotionAdapter(
        block_out_channels=tuple(unet.config.block_out_channels),
        motion_layers_per_block=unet.config.layers_per_block,
        motion_norm_num_groups=unet.config.norm_num_groups,
        motion_num_attention_heads=2,
    )
    parts: dict[str, Any] = {"text_encoder": None, "tokenizer": None}
    parts |= {name: getattr(pipe, name) for name in ("vae", "unet", "scheduler")}
    animate: Any = AnimateDiffPipeline(**parts, motion_adapter=adapter)
    animate.set_progress_bar_config(disable=True)
    frames = animate(**embeds, num_frames=4, generator=seeded(), **SETTINGS).frames[0]
    assert len(frames) == 4
    assert frames[0].size == (64, 64)


def test_instruct_pix2pix(pipe: KosmosGPipeline, embeds: dict[str, torch.Tensor]) -> None:
    """Its U-Net takes the image's latents beside the noise."""
    config = {**pipe.unet.config, "in_channels": 8}
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(config)
    edit: Any = StableDiffusionInstructPix2PixPipeline.from_pipe(
        pipe, text_encoder=None, tokenizer=None, unet=unet
    )
    edit.set_progress_bar_config(disable=True)
    steps = {"num_inference_steps": 2}
    drawn = edit(**embeds, image=noise_image(seed=1), generator=seeded(), **steps).images[0]
    assert np.asarray(drawn).std() > 0


def test_a_pipeline_of_another_kind(pipe: KosmosGPipeline, embeds: dict[str, torch.Tensor]) -> None:
    guided: Any = StableDiffusionPAGPipeline.from_pipe(
        pipe, text_encoder=None, tokenizer=None, pag_applied_layers=["mid"]
    )
    guided.set_progress_bar_config(disable=True)
    one, other = (
        guided(**embeds, pag_scale=scale, generator=seeded(), **SETTINGS).images[0]
        for scale in (0.0, 5.0)
    )
    assert (np.asarray(one) != np.asarray(other)).any()

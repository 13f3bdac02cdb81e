"""Other ways to run the same U-Net and VAE decoder."""

import copy
import time
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor

from kosmosg.checkpoints.stable_diffusion import make_decoder

# Modes of torch.compile; "reduce-overhead" is CUDA graphs.
MODES = {"compiled": "default", "cuda-graphs": "reduce-overhead", "autotuned": "max-autotune"}
VARIANTS = ("attention", "channels-last", *MODES)


def make_variant(decoder: StableDiffusionPipeline, name: str) -> StableDiffusionPipeline:
    """Copy a decoder's networks and change how they are run.

    Args:
        decoder: Stays as it is.
        name: One of ``VARIANTS``. "attention" is the one that takes something away:
            scaled_dot_product_attention, which diffusers uses by itself.
    """
    unet, vae = copy.deepcopy(decoder.unet), copy.deepcopy(decoder.vae)
    if name == "attention":
        for network in (unet, vae):
            network.set_attn_processor(AttnProcessor())
    else:
        unet.to(memory_format=torch.channels_last)
        vae.decoder.to(memory_format=torch.channels_last)
    if name in MODES:
        # Each batch size is compiled for itself: guessing at others would cost speed.
        unet.compile(mode=MODES[name], dynamic=False)
        vae.decoder.compile(mode=MODES[name], dynamic=False)
    scheduler: Any = decoder.scheduler
    return make_decoder(unet, vae, type(scheduler).from_config(scheduler.config))


def first_call(draw: Any) -> tuple[float, Any]:
    """Seconds that the first picture takes, compilation included, and what is drawn."""
    start = time.perf_counter()
    drawing = draw()
    return time.perf_counter() - start, drawing

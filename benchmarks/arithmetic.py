"""Operations that a picture takes, and the rate at which the device multiplies matrices."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import Timed

# Sides of square matrices that keep a device busy, and no longer than needed.
SIDES = {"cuda": 8192, "cpu": 2048}


def count_operations(decoder: StableDiffusionPipeline, steps: int) -> float:
    """Count the floating-point operations of a guided picture; of products and convolutions.

    A multiplication with its addition counts two. At full size a guided step takes 1.607e12, the
    VAE decoder 2.515e12, and a picture of 50 steps 82.8e12.
    """
    networks: Any = decoder
    with torch.device("meta"), torch.no_grad():
        unet: Any = UNet2DConditionModel.from_config(networks.unet.config)
        vae: Any = AutoencoderKL.from_config(networks.vae.config)
        shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        condition = torch.empty(2, 77, unet.config.cross_attention_dim)
        step = count(lambda: unet(torch.empty(2, *shape), torch.empty(()), condition))
        decode = count(lambda: vae.decode(torch.empty(1, *shape)))
    return steps * step + decode


def count(function: Callable[[], Any]) -> int:
    """Count the operations of a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def matrix_rate(device: torch.device, precision: str) -> Callable[[], float]:
    """Make a trial: TFLOP/s of a large product of matrices in a precision."""
    side = SIDES[device.type]
    dtype = getattr(torch, precision)
    # Random values: with zeros a device may run faster than it ever will in earnest.
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    product = Timed(lambda: torch.mm(a, b, out=out), device)
    return lambda: 2 * side**3 / product() / 1e12

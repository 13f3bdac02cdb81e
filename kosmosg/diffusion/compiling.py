"""The decoder's networks, compiled by torch for the sizes that they have been run at.

Compiling takes longer than drawing, so it is done before any request, for sizes that are asked for
most; all others run as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel


def compile_decoder(unet: UNet2DConditionModel, vae: AutoencoderKL) -> None:
    """Have the U-Net's repeated blocks and the VAE's decoder compiled when they run next.

    Each size is compiled for itself: guessing at others would cost speed.
    """
    unet.compile_repeated_blocks(dynamic=False)
    vae.decoder.compile(dynamic=False)


def forget_compiled(unet: UNet2DConditionModel, vae: AutoencoderKL) -> None:
    """Run both as they are again."""
    for module in (*unet.modules(), vae.decoder):
        network: Any = module
        network._compiled_call_impl = None


@contextmanager
def compiling() -> Iterator[None]:
    """Let as many sizes be compiled as are run in a ``with`` block."""
    # Blocks of all widths are one function for torch, which compiles it so many times at most.
    with torch._dynamo.config.patch(recompile_limit=64):
        yield


def not_compiling() -> Any:
    """Compile nothing in a ``with`` block: what fits runs compiled, and the rest as it is."""
    return torch.compiler.set_stance("eager_on_recompile")

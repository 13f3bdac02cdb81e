"""Latents → a small image without the VAE: one linear map per pixel of the latents.

A latent of Stable Diffusion's VAE holds roughly the colour of the 8 × 8 pixels that it stands for,
so that a linear map shows what is being drawn at no cost. The map is fitted to the VAE at hand.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SAMPLES = 48  # random latents that the map is fitted to
SIDE = 8  # of them, in latents
GRAIN = 4  # latents over which their values turn: images are smoother than noise


class LatentPreview:
    """Shows latents as images of their own size.

    Attributes:
        weight: ``(channels + 1, 3)``: from the channels and a constant to RGB in [-1, 1].
    """

    def __init__(self, weight: Float[Tensor, "inputs 3"]):
        self.weight = weight

    @classmethod
    @torch.no_grad()
    def fit(cls, vae: Any) -> "LatentPreview":
        """Fit the map, by least squares, to what the VAE makes of smooth random latents.

        The decoder runs once for each of them, and its output is averaged over the pixels of a
        latent. Fitting to latents costs nothing but this, and no images are needed.

        Args:
            vae: An ``AutoencoderKL``.
        """
        channels = vae.config.latent_channels
        generator = torch.Generator("cpu").manual_seed(0)
        coarse = torch.randn((SAMPLES, channels, SIDE // GRAIN, SIDE // GRAIN), generator=generator)
        latents = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")
        pixels = []
        for row in latents.split(1):
            scaled = (row / vae.config.scaling_factor).to(vae.device, vae.dtype)
            decoded = vae.decode(scaled, return_dict=False)[0].float().cpu()
            pixels.append(F.adaptive_avg_pool2d(decoded, (SIDE, SIDE)))
        outputs = torch.cat(pixels).permute(0, 2, 3, 1).reshape(-1, 3).clamp(-1, 1)
        return cls(torch.linalg.lstsq(_inputs(latents), outputs).solution)

    def images(self, latents: Float[Tensor, "rows channels height width"]) -> list[Image.Image]:
        """Show latents, also noisy ones, whose scale some samplers raise far above one."""
        values = latents.detach().float().cpu()
        values = values / values.std(dim=(1, 2, 3), keepdim=True).clamp(min=1)
        rows, _, height, width = values.shape
        shown = (_inputs(values) @ self.weight).reshape(rows, height, width, 3)
        eight_bits = ((shown.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)
        return [Image.fromarray(row) for row in eight_bits]


def _inputs(
    latents: Float[Tensor, "rows channels height width"],
) -> Float[Tensor, "pixels inputs"]:
    flat = latents.permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([flat, torch.ones(len(flat), 1)], dim=1)

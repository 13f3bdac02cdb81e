"""The autoencoder that a decoder from nothing needs; Stable Diffusion brings its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.pil_utils import make_image_grid
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kosmosg.diffusion.sampling import draw_noise
from kosmosg.training.stage import Stage
from kosmosg.training.stages.common import SeededSample
from miniature.pretraining.perceptual import PerceptualDistance

# Latents hardly pay for what they hold: the U-Net is scaled to them afterwards.
KL_WEIGHT = 1e-6
SHARPNESS = 0.1  # weight of the absolute distance
DECODING = ("decoder.", "post_quant_conv.")  # the parts that make images of latents
DISTURBANCE = 0.2  # of the latents at most, in their own scale, for a decoder trained alone
PERCEPTION = 0.2  # weight of the perceptual distance, where there is one


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Images in [-1, 1] and the seeds of their noise."""

    pixels: Float[Tensor, "batch 3 size size"]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        """Count the images."""
        return len(self.pixels)

    def to(self, device: torch.device) -> "ImageBatch":
        """Move the images."""
        return replace(self, pixels=self.pixels.to(device))


class VaeStage(Stage):
    """Trains an ``AutoencoderKL`` to give images back.

    The loss is the squared distance of pixels and of their differences to the right and lower
    neighbours, which is where edges and textures are, some absolute distance, and a trace of the
    divergence. With absolute distances alone a small autoencoder stays grey for long: as long as
    it knows little, the median of an edge is none. The square of the latents is followed over the
    updates, for their scale.

    Args:
        vae: The networks.
        decoder_only: Leave the encoder, and thus all latents, as they are: what a U-Net has
            learned of them stays true. Latents are disturbed a little, each image's by another
            degree, for those of a U-Net are never quite what the encoder would have made.
        perceptual: Another distance to be small.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        *,
        decoder_only: bool = False,
        perceptual: PerceptualDistance | None = None,
    ):
        super().__init__()
        self.vae = vae
        self.vae.requires_grad_(True)
        self.perceptual = perceptual
        self._decoder_only = decoder_only
        if decoder_only:
            for name, parameter in self.vae.named_parameters():
                parameter.requires_grad_(name.startswith(DECODING))
        self._shown: ImageBatch | None = None
        # A running mean over the updates, for the scale that the U-Net works at.
        self.latent_square: Tensor
        self.register_buffer("latent_square", torch.ones(()))

    def set_modes(self) -> None:
        """Put the whole autoencoder into training mode, also where a half of it is frozen."""
        self.train()

    def collate(self, samples: Sequence[SeededSample]) -> ImageBatch:
        """Stack the targets."""
        pixels = np.stack([np.asarray(sample.prepared.target) for sample in samples])
        batch = ImageBatch(
            pixels=torch.from_numpy(pixels).float(), seeds=tuple(s.seed for s in samples)
        )
        self._shown = self._shown or batch
        return batch

    def losses(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Compare the reconstruction with the image."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._decoder_only):
            encoded: Any = self.vae.encode(batch.pixels)
        posterior = encoded.latent_dist
        mean, deviation = posterior.mean.float(), posterior.std.float()
        noise = draw_noise(batch.seeds, *mean.shape[1:]).to(mean)
        losses: dict[str, Tensor] = {}
        if self._decoder_only:
            deviation = torch.hypot(deviation, self._disturbance(batch.seeds).to(mean))
        else:
            variance = deviation.square()
            losses["divergence"] = 0.5 * (mean.square() + variance - 1 - variance.log()).mean()
            losses["square"] = (mean + deviation * noise).detach().square().mean()
        decoded: Any = self.vae.decode(mean + deviation * noise)
        error = decoded.sample.float() - batch.pixels
        losses["pixel"] = error.square().mean() + SHARPNESS * error.abs().mean()
        losses["edge"] = error.diff(dim=-1).square().mean() + error.diff(dim=-2).square().mean()
        loss = losses["pixel"] + losses["edge"]
        if not self._decoder_only:
            loss = loss + KL_WEIGHT * losses["divergence"]
        if self.perceptual is not None:
            seen = self.perceptual(decoded.sample.float(), batch.pixels, batch.seeds)
            losses["perceptual"] = seen
            loss = loss + PERCEPTION * seen
        return {"loss": loss, **losses}

    def after_update(self, losses: Mapping[str, float]) -> None:
        """Follow the square of the latents, once for all micro-batches and processes."""
        if not self._decoder_only:
            self.latent_square.lerp_(torch.tensor(losses["square"]).to(self.latent_square), 0.01)

    def _disturbance(self, seeds: Sequence[int]) -> Float[Tensor, "batch 1 1 1"]:
        """Draw the deviation of each image's disturbance."""
        draws = [torch.rand(1, generator=torch.Generator().manual_seed(s)) for s in seeds]
        unit = 1.0 / self.vae.config["scaling_factor"]
        return (DISTURBANCE * unit * torch.stack(draws))[..., None, None]

    def save(self, directory: Path) -> None:
        """Write the autoencoder with the scale that brings its latents to unit variance."""
        if not self._decoder_only:
            self.vae.register_to_config(scaling_factor=float(self.latent_square.rsqrt()))
        self.vae.save_pretrained(directory / "vae")

    def sample_images(self) -> Image.Image | None:
        """Show images above what becomes of them."""
        if self._shown is None:
            return None
        self.eval()
        pixels = self._shown.pixels[:8].to(self.vae.device)
        encoded: Any = self.vae.encode(pixels)
        decoded: Any = self.vae.decode(encoded.latent_dist.mode())
        images: Any = VaeImageProcessor().postprocess(torch.cat([pixels, decoded.sample]).float())
        return make_image_grid(images, rows=2, cols=len(pixels))

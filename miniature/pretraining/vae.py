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
from torch import Tensor, nn
from torch.nn import functional as F

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
COARSE = 0.25  # weight of what latents of half the size give
FIRST_SIGNAL, FIRST_LOG_VARIANCE = 4.0, -5.0  # of an untrained encoder's latents
FOLLOWED = 0.01  # share of the newest batch in the running moments of the latents


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
    it knows little, the median of an edge is none. Latents of half the size are to give the image
    at half its size, which keeps them smooth, and thus easy to learn for a U-Net (compare arXiv
    2502.09509). Mean and variance of each channel are followed over the updates; the result has
    latents of mean 0 and variance 1, so that no channel is faint beside the noise.

    Args:
        vae: The networks.
        decoder_only: Leave the encoder, and thus all latents, as they are: what a U-Net has
            learned of them stays true. Latents are disturbed a little, each image's by another
            degree, for those of a U-Net are never quite what the encoder would have made.
        perceptual: Another distance to be small.
        crop: Side of the square that is cut out of each image by chance; by default all of it. The
            networks are convolutional, and small squares of many images teach more in the same time
            than few whole ones.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        *,
        decoder_only: bool = False,
        perceptual: PerceptualDistance | None = None,
        crop: int | None = None,
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
        self._crop = crop
        self._seen: list[Tensor] = []  # the latents of this update
        channels = self.vae.config["latent_channels"]
        self.latent_mean: Tensor
        self.latent_square: Tensor
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_square", torch.ones(channels))

    def set_modes(self) -> None:
        """Put the whole autoencoder into training mode, also where a half of it is frozen."""
        self.train()

    def collate(self, samples: Sequence[SeededSample]) -> ImageBatch:
        """Stack the targets."""
        pixels = np.stack([self._cut(sample) for sample in samples])
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
            if torch.is_grad_enabled():
                self._seen.append((mean + deviation * noise).detach())
        decoded: Any = self.vae.decode(mean + deviation * noise)
        error = decoded.sample.float() - batch.pixels
        losses["pixel"] = error.square().mean() + SHARPNESS * error.abs().mean()
        losses["edge"] = error.diff(dim=-1).square().mean() + error.diff(dim=-2).square().mean()
        loss = losses["pixel"] + losses["edge"]
        if not self._decoder_only:
            half: Any = F.avg_pool2d(mean + deviation * noise, 2)
            halved: Any = self.vae.decode(half)
            coarse = halved.sample.float() - F.avg_pool2d(batch.pixels, 2)
            losses["coarse"] = coarse.square().mean() + SHARPNESS * coarse.abs().mean()
            loss = loss + KL_WEIGHT * losses["divergence"] + COARSE * losses["coarse"]
        if self.perceptual is not None:
            seen = self.perceptual(decoded.sample.float(), batch.pixels, batch.seeds)
            losses["perceptual"] = seen
            loss = loss + PERCEPTION * seen
        return {"loss": loss, **losses}

    def _cut(self, sample: SeededSample) -> np.ndarray:
        """Cut the square out of an image that its seed says."""
        pixels = np.asarray(sample.prepared.target)
        if self._crop is None:
            return pixels
        left, top = np.random.default_rng(sample.seed).integers(
            pixels.shape[-1] - self._crop + 1, size=2
        )
        return pixels[:, top : top + self._crop, left : left + self._crop]

    def after_update(self, losses: Mapping[str, float]) -> None:
        """Follow the moments of the latents, once for all micro-batches.

        Each process follows its own part of the batches; what the main one has found is written.
        """
        if self._seen:
            latents = torch.cat(self._seen)
            self.latent_mean.lerp_(latents.mean(dim=(0, 2, 3)), FOLLOWED)
            self.latent_square.lerp_(latents.square().mean(dim=(0, 2, 3)), FOLLOWED)
            self._seen.clear()

    def _disturbance(self, seeds: Sequence[int]) -> Float[Tensor, "batch 1 1 1"]:
        """Draw the deviation of each image's disturbance."""
        draws = [torch.rand(1, generator=torch.Generator().manual_seed(s)) for s in seeds]
        unit = 1.0 / self.vae.config["scaling_factor"]
        return (DISTURBANCE * unit * torch.stack(draws))[..., None, None]

    def save(self, directory: Path) -> None:
        """Write the autoencoder, with latents of mean 0 and variance 1."""
        if not self._decoder_only:
            normalise_latents(self.vae, self.latent_mean, self.latent_square)
            self.vae.register_to_config(scaling_factor=1.0)
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


@torch.no_grad()
def normalise_latents(
    vae: AutoencoderKL, mean: Float[Tensor, "channels"], square: Float[Tensor, "channels"]
) -> None:
    """Bring each channel of the latents to mean 0 and variance 1, and leave all images as they are.

    The layers between latents and networks, which look at one position each, take it on.

    Args:
        vae: Changed in place.
        mean: Of each channel as it is.
        square: Mean square of each channel as it is.
    """
    into: Any = vae.quant_conv
    out: Any = vae.post_quant_conv
    mean, square = mean.float(), square.float()  # also where the networks are of less precision
    deviation = (square - mean.square()).clamp(min=1e-8).sqrt()
    channels = len(mean)
    weight, bias = into.weight.float(), into.bias.float()
    weight[:channels] /= deviation[:, None, None, None]
    bias[:channels] = (bias[:channels] - mean) / deviation
    bias[channels:] -= 2 * deviation.log()  # logarithms of variances
    into.weight.copy_(weight)
    into.bias.copy_(bias)
    out.bias.copy_(out.bias.float() + out.weight[:, :, 0, 0].float() @ mean)
    out.weight.copy_(out.weight.float() * deviation[None, :, None, None])


@torch.no_grad()
def begin_with_signal(vae: AutoencoderKL) -> None:
    """Give an untrained autoencoder initial values that let the image through.

    With the library's, every layer shrinks what it is given to a third, the latents' mean has a
    deviation of a quarter under noise of 1, and a small autoencoder needs three times as many
    updates until it shows more than blurs. Here residual blocks begin as nothing, all other layers
    keep the size of what comes through, and latents have more signal than noise.
    """
    for name, layer in vae.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        outs, ins, side, _ = layer.weight.shape
        if name.endswith("conv2"):
            nn.init.zeros_(layer.weight)
        elif name.endswith("conv1"):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif "downsamplers" in name:
            layer.weight.mul_(0.1)
            layer.weight[:, :, :2, :2] += nn.init.orthogonal_(torch.empty(outs, 4 * ins)).view(
                outs, ins, 2, 2
            )
        elif "upsamplers" in name or name == "decoder.conv_in":
            nn.init.normal_(layer.weight, std=(0.5 / ins) ** 0.5 / side)
            layer.weight[:, :, 1, 1] += nn.init.orthogonal_(torch.empty(outs, ins))
        else:
            nn.init.orthogonal_(layer.weight)
    into: Any = vae.quant_conv
    channels = vae.config["latent_channels"]
    into.weight[:channels] *= FIRST_SIGNAL
    into.weight[channels:] = 0
    into.bias[channels:] = FIRST_LOG_VARIANCE

"""The U-Net that a decoder from nothing needs: Stable Diffusion, text to image, in small."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import CLIPTextModel

from kosmosg.training.diffusion import Diffusion
from kosmosg.training.losses import diffusion_loss
from kosmosg.training.stage import Stage


@dataclass(frozen=True, kw_only=True)
class LatentExample:
    """A picture's posterior, computed once for the whole run, and its caption.

    Attributes:
        mean: Of the VAE's posterior.
        deviation: Likewise.
        ids: CLIP's token ids of the caption.
        seed: Of noise, timestep and the choice to drop the caption.
    """

    mean: Float[Tensor, "channels height width"]
    deviation: Float[Tensor, "channels height width"]
    ids: Int64[Tensor, "length"]
    seed: int


@dataclass(frozen=True, kw_only=True)
class LatentBatch:
    """Several of them."""

    mean: Float[Tensor, "batch channels height width"]
    deviation: Float[Tensor, "batch channels height width"]
    ids: Int64[Tensor, "batch length"]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.mean)

    def to(self, device: torch.device) -> "LatentBatch":
        """Move everything."""
        return replace(
            self,
            mean=self.mean.to(device),
            deviation=self.deviation.to(device),
            ids=self.ids.to(device),
        )


class DecoderStage(Stage):
    """Trains a U-Net to draw what CLIP's text encoder says.

    Args:
        source: Folder with the VAE, the text encoder and its tokenizer, which the U-Net joins.
        unet: Trained.
        text_encoder: Frozen; gives the conditions.
        null_ids: Tokens of the empty caption, which replaces 10 % of the captions.
        diffusion: The VAE's scale and the noise schedule.
        snr_gamma: Limit of the signal-to-noise ratio, above which timesteps count less. A small
            U-Net learns shapes sooner with 5.
    """

    def __init__(
        self,
        source: Path,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        null_ids: Int64[Tensor, "1 length"],
        diffusion: Diffusion,
        snr_gamma: float | None = None,
    ):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.text_encoder.requires_grad_(False)
        self.unet.requires_grad_(True)
        self.register_buffer("null_ids", null_ids, persistent=False)
        self._source, self._diffusion, self._snr_gamma = source, diffusion, snr_gamma

    def set_modes(self) -> None:
        """Train the U-Net."""
        self.train()
        self.text_encoder.eval()

    def collate(self, samples: Sequence[LatentExample]) -> LatentBatch:
        """Stack the examples."""
        return LatentBatch(
            mean=torch.stack([sample.mean for sample in samples]).float(),
            deviation=torch.stack([sample.deviation for sample in samples]).float(),
            ids=torch.stack([sample.ids for sample in samples]),
            seeds=tuple(sample.seed for sample in samples),
        )

    def losses(self, batch: LatentBatch) -> dict[str, Tensor]:
        """Predict the noise."""
        draws = self._diffusion.draw(batch.seeds, batch.mean.shape[1:], batch.mean.device)
        noisy = self._diffusion.add_noise(batch.mean, batch.deviation, draws)
        with torch.no_grad():
            condition = self.text_encoder(batch.ids).last_hidden_state
            null = self.text_encoder(self.null_ids).last_hidden_state
        condition = self._diffusion.drop(condition, null, draws)
        predicted: Any = self.unet(noisy, draws.timesteps, condition)
        if self._snr_gamma is None:
            return {"loss": diffusion_loss(predicted.sample, draws.noise)}
        errors = (predicted.sample.float() - draws.noise).square().mean(dim=(1, 2, 3))
        weights = self._diffusion.snr_weights(draws.timesteps, self._snr_gamma)
        return {"loss": (weights * errors).mean(), "noise": errors.detach().mean()}

    def save(self, directory: Path) -> None:
        """Write a folder as that of Stable Diffusion: what there was, with the U-Net."""
        shutil.copytree(self._source, directory, dirs_exist_ok=True)
        self.unet.save_pretrained(directory / "unet")

"""The U-Net that a decoder from nothing needs: Stable Diffusion, text to image, in small."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from transformers import CLIPTextModel

from kosmosg.training.losses import diffusion_loss
from kosmosg.training.noise import Diffusion
from kosmosg.training.stage import Stage


@dataclass(frozen=True, kw_only=True)
class LatentExample:
    """An image's posterior, computed once for the whole run, and its caption.

    Attributes:
        mean: Of the VAE's posterior.
        deviation: Likewise.
        ids: CLIP's token ids of the caption.
        seed: Of noise, timestep and the choice to drop the caption.
        control_map: What a ControlNet reads, 0 to 255; for a ControlNet alone.
    """

    mean: Float[Tensor, "channels height width"]
    deviation: Float[Tensor, "channels height width"]
    ids: Int64[Tensor, "length"]
    seed: int
    control_map: UInt8[Tensor, "3 pixels pixels"] | None = None


@dataclass(frozen=True, kw_only=True)
class LatentBatch:
    """Several of them."""

    mean: Float[Tensor, "batch channels height width"]
    deviation: Float[Tensor, "batch channels height width"]
    ids: Int64[Tensor, "batch length"]
    seeds: tuple[int, ...]
    control_maps: UInt8[Tensor, "batch 3 pixels pixels"] | None = None

    def __len__(self) -> int:
        """Count the images."""
        return len(self.mean)

    def to(self, device: torch.device) -> "LatentBatch":
        """Move everything."""
        maps = self.control_maps
        return replace(
            self,
            control_maps=None if maps is None else maps.to(device),
            mean=self.mean.to(device),
            deviation=self.deviation.to(device),
            ids=self.ids.to(device),
        )


class DecoderStage(Stage):
    """Trains a U-Net to draw what CLIP's text encoder says.

    Args:
        unet: Trained.
        text_encoder: Frozen; gives the conditions.
        null_ids: Tokens of the empty caption, which replaces 10 % of the captions.
        diffusion: The VAE's scale and the noise schedule.
        snr_gamma: Limit of the signal-to-noise ratio, above which timesteps count less. A small
            U-Net learns shapes sooner with 5.
        source: Folder with the VAE, the text encoder and its tokenizer, which the U-Net joins in
            the result.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        null_ids: Int64[Tensor, "1 length"],
        diffusion: Diffusion,
        *,
        snr_gamma: float | None = None,
        source: Path | None = None,
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
        maps = [sample.control_map for sample in samples if sample.control_map is not None]
        return LatentBatch(
            control_maps=torch.stack(maps) if maps else None,
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
        predicted = self.predict(noisy, draws.timesteps, condition, batch)
        if self._snr_gamma is None:
            return {"loss": diffusion_loss(predicted, draws.noise)}
        errors = (predicted.float() - draws.noise).square().mean(dim=(1, 2, 3))
        weights = self._diffusion.snr_weights(draws.timesteps, self._snr_gamma)
        return {"loss": (weights * errors).mean(), "noise": errors.detach().mean()}

    def predict(
        self,
        noisy: Float[Tensor, "batch channels height width"],
        timesteps: Int64[Tensor, "batch"],
        condition: Float[Tensor, "batch queries dim"],
        batch: LatentBatch,
    ) -> Float[Tensor, "batch channels height width"]:
        """Predict the noise in latents."""
        return self.unet(noisy, timesteps, condition).sample

    def save(self, directory: Path) -> None:
        """Write a folder as that of Stable Diffusion: what there was, with the U-Net."""
        if self._source:
            shutil.copytree(self._source, directory, dirs_exist_ok=True)
        self.unet.save_pretrained(directory / "unet")

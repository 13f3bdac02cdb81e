"""Stage 3: instruction tuning through the frozen decoder (paper, section 2.3)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.pil_utils import make_image_grid
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kosmosg.checkpoints.stable_diffusion import make_decoder
from kosmosg.diffusion.sampling import SamplingInputs, decode, draw_noise, sample
from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.errors import WeightsError
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.batch import Batch
from kosmosg.prompts.images import CLIP_MEAN, CLIP_STD
from kosmosg.training.losses import diffusion_loss
from kosmosg.training.noise import Diffusion
from kosmosg.training.stage import Stage
from kosmosg.training.stages.common import (
    PromptBatch,
    SeededSample,
    collate_prompts,
    read_prompts,
    save_weights,
    train_language_model,
)

# A sheet shows so many samples, with so many of their input images.
SHOWN, INPUTS = 8, 2
STEPS, GUIDANCE = 20, 6.0


class InstructStage(Stage):
    """Trains KOSMOS-G on the diffusion loss; gradients flow through the frozen U-Net.

    Args:
        kosmosg: AlignerNet and all that stage 1 trains.
        unet: Frozen.
        vae: Frozen.
        scheduler_config: Of the decoder.
        start: Weights folder that this began with.
        aligner_only: Leave the language model as it is; for ablations.
    """

    def __init__(
        self,
        kosmosg: KosmosG,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler_config: dict[str, Any],
        start: Path,
        *,
        aligner_only: bool = False,
    ):
        super().__init__()
        self.kosmosg, self.unet, self.vae = kosmosg, unet, vae
        self.requires_grad_(False)
        self.kosmosg.aligner.requires_grad_(True)
        if not aligner_only:
            train_language_model(self.kosmosg)
        self._diffusion = Diffusion(scheduler_config, self.vae.config["scaling_factor"])
        self._scheduler_config = scheduler_config
        self._start = start
        self._shown: tuple[list[SeededSample], PromptBatch] | None = None

    def set_modes(self) -> None:
        """Train KOSMOS-G with dropout; the decoder is as at inference."""
        self.kosmosg.train()
        self.unet.eval()
        self.vae.eval()

    def collate(self, samples: Sequence[SeededSample]) -> PromptBatch:
        """Pad the prompts and stack the targets."""
        if self._shown is None:
            first = list(samples[:SHOWN])
            self._shown = (first, collate_prompts(first))
        return collate_prompts(samples)

    def losses(self, batch: PromptBatch) -> dict[str, Tensor]:
        """Predict the noise, given the prompt or, one time in ten, nothing."""
        assert batch.targets is not None
        with torch.no_grad():
            encoded: Any = self.vae.encode(batch.targets)
        posterior = encoded.latent_dist
        draws = self._diffusion.draw(batch.seeds, posterior.mean.shape[1:], batch.targets.device)
        noisy = self._diffusion.add_noise(posterior.mean, posterior.std, draws)
        condition = self._condition(batch.prompts)
        condition = self._diffusion.drop(condition, self.kosmosg.null_condition(), draws)
        predicted: Any = self.unet(noisy, draws.timesteps, condition)
        return {"loss": diffusion_loss(predicted.sample, draws.noise)}

    def save(self, directory: Path) -> None:
        """Write a weights folder."""
        save_weights(self.kosmosg, "instruct", self._start, directory)

    def sample_images(self) -> Image.Image | None:
        """Show the first samples: their input images, the target, and what is generated."""
        if self._shown is None:
            return None
        samples, batch = self._shown
        self.eval()
        condition = self._condition(batch.to(self.kosmosg.device).prompts)
        channels, side = self.unet.config["in_channels"], self.unet.config["sample_size"]
        inputs = SamplingInputs(
            condition=condition,
            negative=self.kosmosg.null_condition().expand_as(condition),
            noise=draw_noise(range(len(samples)), channels, side, side),
            steps=STEPS,
            guidance_scale=GUIDANCE,
        )
        scheduler = make_scheduler("DPMSolverMultistep", self._scheduler_config)
        decoder = make_decoder(self.unet, self.vae, scheduler)
        try:
            generated, _ = sample(decoder, inputs)
        except WeightsError:  # before the VAE, which other processes may have shards of
            for row in inputs.noise.to(self.kosmosg.device).split(1):
                decode(decoder, row)
            raise
        assert batch.targets is not None
        targets: Any = VaeImageProcessor().postprocess(batch.targets)
        images = []
        for each, target, image in zip(samples, targets, generated, strict=True):
            inputs = [_unnormalise(pixels) for pixels in each.prepared.pixels[:INPUTS]]
            blanks = [Image.new("RGB", (1, 1), "white")] * (INPUTS - len(inputs))
            images += [*inputs, *blanks, target, image]
        side = generated[0].width
        return make_image_grid(images, rows=len(samples), cols=INPUTS + 2, resize=side)

    def _condition(self, prompts: Batch) -> Float[Tensor, "batch queries dim"]:
        return self.kosmosg.aligner(read_prompts(self.kosmosg, prompts), prompts.padding_mask)


def _unnormalise(pixels: np.ndarray) -> Image.Image:
    """Turn what CLIP sees back into an image."""
    values = pixels.transpose(1, 2, 0) * CLIP_STD + CLIP_MEAN
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))

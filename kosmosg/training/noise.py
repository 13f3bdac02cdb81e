"""The chance and the noise of a diffusion loss (paper, equation 3, and the authors' code)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from jaxtyping import Float, Int64
from torch import Tensor

from kosmosg.errors import WeightsError
from kosmosg.training.losses import replace_by_null

NULL_PROBABILITY = 0.1


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What is drawn for each sample, from its own seed.

    Attributes:
        posterior: Standard normal, for a sample of the VAE's posterior.
        noise: Standard normal, what the U-Net predicts.
        timesteps: Uniform over the schedule.
        null: Uniform in [0, 1); below the probability, the condition is replaced.
    """

    posterior: Float[Tensor, "batch channels height width"]
    noise: Float[Tensor, "batch channels height width"]
    timesteps: Int64[Tensor, "batch"]
    null: Float[Tensor, "batch"]


class Diffusion:
    """Adds noise as the decoder's schedule has it.

    Args:
        scheduler_config: Settings of the decoder's scheduler.
        scaling_factor: Of the VAE's latents.
        null_probability: How often a condition is replaced by the null condition.

    Raises:
        WeightsError: If the decoder predicts something else than the noise.
    """

    def __init__(
        self,
        scheduler_config: dict,
        scaling_factor: float,
        null_probability: float = NULL_PROBABILITY,
    ):
        predicted = scheduler_config.get("prediction_type", "epsilon")
        if predicted != "epsilon":
            raise WeightsError(
                f"The decoder's scheduler has prediction_type={predicted!r}, but the loss compares "
                "with the noise, 'epsilon'. Take a decoder such as that of Stable Diffusion v1.5."
            )
        names = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")
        self._scheduler = DDPMScheduler(**{name: scheduler_config[name] for name in names})
        self._scale = scaling_factor
        self._null_probability = null_probability

    def draw(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> Draws:
        """Draw all chance of a batch.

        Args:
            seeds: One per sample.
            shape: Of one sample's latents.
            device: Where the result goes; the draws are the same on all.
        """
        rows = [torch.Generator().manual_seed(seed) for seed in seeds]
        steps = self._scheduler.config["num_train_timesteps"]
        return Draws(
            posterior=torch.stack([torch.randn(*shape, generator=g) for g in rows]).to(device),
            noise=torch.stack([torch.randn(*shape, generator=g) for g in rows]).to(device),
            timesteps=torch.cat([torch.randint(steps, (1,), generator=g) for g in rows]).to(device),
            null=torch.cat([torch.rand(1, generator=g) for g in rows]).to(device),
        )

    def add_noise(
        self,
        mean: Float[Tensor, "batch channels height width"],
        deviation: Float[Tensor, "batch channels height width"],
        draws: Draws,
    ) -> Float[Tensor, "batch channels height width"]:
        """Sample the posterior, bring it to the U-Net's scale and add noise."""
        latents = self._scale * (mean.float() + deviation.float() * draws.posterior)
        # The schedule's tables are on the CPU until they are first used elsewhere.
        timesteps: Any = draws.timesteps
        return self._scheduler.add_noise(latents, draws.noise, timesteps)

    def snr_weights(
        self, timesteps: Int64[Tensor, "batch"], gamma: float
    ) -> Float[Tensor, "batch"]:
        """Compute how much each timestep counts: min(SNR, gamma) / SNR (arXiv 2303.09556).

        Where there is little noise, its prediction is a matter of details, and the largest loss.
        """
        ratio: Tensor = compute_snr(self._scheduler, timesteps)
        return ratio.clamp(max=gamma) / ratio

    def drop(
        self,
        condition: Float[Tensor, "batch queries dim"],
        null: Float[Tensor, "1 queries dim"],
        draws: Draws,
    ) -> Float[Tensor, "batch queries dim"]:
        """Replace some conditions by the null condition, so that guidance can be used."""
        return replace_by_null(condition, null, draws.null, self._null_probability)

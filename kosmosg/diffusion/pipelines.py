"""Which of diffusers' pipelines draws a request.

Text to image or image to image, each with or without a ControlNet; all share the decoder's
networks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from jaxtyping import Float
from torch import Tensor

from kosmosg.diffusion.control import ControlMap
from kosmosg.diffusion.init_image import Start


class StartsFromLatents:
    """Takes the initial latents as they are given.

    diffusers' own pipelines encode the image once per row and draw noise behind that; here all
    rows share one encoding, and the noise is the one that text to image would begin with. At full
    strength that noise is all there is: theirs would keep seven hundredths of the image.
    """

    scheduler: Any
    start: Start
    noise: Tensor

    def prepare_latents(self, image: Any, timestep: Tensor, *_: Any, **__: Any) -> Tensor:
        """Stand in for diffusers' method of this name."""
        if self.start.strength == 1:
            return self.noise * self.scheduler.init_noise_sigma
        latents = self.start.latents.to(self.noise).expand_as(self.noise)
        return self.scheduler.add_noise(latents, self.noise, timestep)

    def known_latents(self, step: int) -> Float[Tensor, "rows channels height width"]:
        """The image with the noise that it should have after a step."""
        latents = self.start.latents.to(self.noise).expand_as(self.noise)
        timesteps = self.scheduler.timesteps[-self.num_timesteps :]  # type: ignore[attr-defined]
        if step + 1 == len(timesteps):
            return latents
        return self.scheduler.add_noise(latents, self.noise, timesteps[step + 1].reshape(1))


class ImageToImage(StartsFromLatents, StableDiffusionImg2ImgPipeline):
    """diffusers' image to image, from given latents."""


class ControlledImageToImage(StartsFromLatents, StableDiffusionControlNetImg2ImgPipeline):
    """diffusers' image to image with a ControlNet, from given latents."""


def choose_pipeline(
    decoder: StableDiffusionPipeline,
    noise: Float[Tensor, "rows channels height width"],
    control: ControlMap | None,
    start: Start | None,
) -> tuple[Any, dict[str, Any]]:
    """Choose the pipeline for a request, and what it is called with besides the condition.

    Args:
        decoder: Text to image, its scheduler set.
        noise: Initial noise on the U-Net's device, in its precision.
        control: What fixes the layout, if anything does.
        start: What to start from, if not from noise.
    """
    height, width = (side * decoder.vae_scale_factor for side in noise.shape[-2:])
    sides = {"width": width, "height": height}
    if control is None and start is None:
        return decoder, {"latents": noise, **sides}
    if start is None:
        assert control is not None
        pipeline = _derive(StableDiffusionControlNetPipeline, decoder, control)
        return pipeline, {"latents": noise, "image": control.image, **sides, **control.arguments}
    arguments: dict[str, Any] = {"image": start.image, "strength": start.strength}
    if control is None:
        pipeline = _derive(ImageToImage, decoder)
    else:
        pipeline = _derive(ControlledImageToImage, decoder, control)
        arguments |= {"control_image": control.image, **sides, **control.arguments}
    pipeline.start, pipeline.noise = start, noise
    return pipeline, arguments


def generators_after(
    noise: Float[Tensor, "rows channels height width"], seeds: Sequence[int]
) -> list[torch.Generator] | None:
    """Make generators that have drawn the initial noise, for samplers that draw more of it."""
    if not seeds:
        return None
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    for generator in generators:
        torch.randn(noise.shape[1:], generator=generator)
    return generators


def _derive(kind: Any, decoder: StableDiffusionPipeline, control: ControlMap | None = None) -> Any:
    parts = dict(decoder.components)
    if control is not None:
        parts["controlnet"] = control.network
    pipeline = kind(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

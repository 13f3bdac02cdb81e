"""An image to start from, and a mask that says what of it may change.

Image to image after SDEdit (arXiv 2108.01073): the image is noised up to a point of the schedule
and denoised from there. Inpainting after RePaint's simplest form, as diffusers does it for U-Nets
without a mask input: after every step, what must stay is put back with the noise of that step.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionControlNetImg2ImgPipeline, StableDiffusionImg2ImgPipeline
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from kosmosg.diffusion.settings import PROMPT_STRENGTH
from kosmosg.errors import ImageError, SettingError
from kosmosg.prompts.colours import normalise, to_rgb
from kosmosg.prompts.images import pool
from kosmosg.utils.checks import check_number

WHITE = 128  # from here on, of 255, a mask is white
# A mask on a transparent ground: at most this share of what is painted may be grey or coloured.
MOST_OTHERS = 0.25
NEARLY = 64  # levels from black or from white
ASPECT_TOLERANCE = 0.02  # between an image and its mask


@dataclass(frozen=True, kw_only=True)
class InitImage:
    """An image to start from instead of noise.

    Attributes:
        image: Any image; its proportions become those of the result. On white where it is
            transparent.
        mask: White where the image may change; all of it by default. What is transparent is not
            painted, and so black.
        strength: 0 to 1, how far to move away; 1 ignores the image but for what a mask keeps.
    """

    image: Image.Image
    mask: Image.Image | None = None
    strength: float = PROMPT_STRENGTH

    def __post_init__(self) -> None:
        strength = check_number("prompt_strength", self.strength, 0, 1)
        object.__setattr__(self, "strength", strength)  # a plain number, for the metadata
        object.__setattr__(self, "image", normalise(self.image))
        if self.mask is None:
            return
        object.__setattr__(self, "mask", normalise(self.mask))
        ratio = (self.mask.width * self.image.height) / (self.mask.height * self.image.width)
        if abs(ratio - 1) > ASPECT_TOLERANCE:
            raise ImageError(
                f"init_mask has {self.mask.width} × {self.mask.height} pixels, and init_image "
                f"{self.image.width} × {self.image.height}. Give a mask of the same proportions."
            )
        read_mask(self.mask)

    def check_steps(self, steps: int) -> None:
        """Check that at least one step is left to take.

        Raises:
            SettingError: With the smallest strength that works.
        """
        if int(steps * self.strength) < 1:
            least = math.ceil(1000 / steps) / 1000  # rounded up: what is advised must work
            raise SettingError(
                f"prompt_strength {self.strength:g} of {steps} steps leaves no step to take. Give "
                f"at least {least:.3f}."
            )


@dataclass(frozen=True, kw_only=True)
class Start:
    """An initial image, prepared for one size.

    Attributes:
        image: RGB, of the size of the result.
        latents: The image as the VAE's encoder sees it.
        pixel_mask: White where the result counts, as ``image`` in size; or ``None``.
        latent_mask: 1 where latents may change, else 0.
        strength: Share of the schedule to go through.
    """

    image: Image.Image
    latents: Float[Tensor, "1 channels height width"]
    pixel_mask: Image.Image | None
    latent_mask: Float[Tensor, "1 1 height width"] | None
    strength: float

    def keep(
        self,
        latents: Float[Tensor, "rows channels height width"],
        known: Float[Tensor, "rows channels height width"],
    ) -> Float[Tensor, "rows channels height width"]:
        """Put what must not change back into the latents."""
        if self.latent_mask is None:
            return latents
        mask = self.latent_mask.to(latents)
        return mask * latents + (1 - mask) * known

    def finish(self, image: Image.Image) -> Image.Image:
        """Put what must not change back into an image, untouched by the VAE."""
        if self.pixel_mask is None:
            return image
        return Image.composite(image, self.image, self.pixel_mask)


def read_mask(mask: Image.Image) -> Bool[np.ndarray, "height width"]:
    """Find where a mask is white.

    Args:
        mask: RGB, or RGBA: white strokes on a transparent ground.

    Raises:
        ImageError: If nothing is white, or transparency leaves it open what is.
    """
    values = np.asarray(mask.convert("RGBA"))
    grey, alpha = np.asarray(mask.convert("RGB").convert("L")), values[..., 3]
    white = grey * (alpha / 255.0) >= WHITE
    if mask.mode == "RGBA":
        painted = values[alpha >= WHITE][:, :3]
        others = (painted.max(axis=1) >= NEARLY) & (painted.min(axis=1) <= 255 - NEARLY)
        if not white.any() or others.mean() > MOST_OTHERS:
            raise ImageError(
                "init_mask has transparent parts, and the others are not white strokes: what may "
                "change cannot be told. Save it without transparency, white where to repaint and "
                "black elsewhere."
            )
    if not white.any():
        raise ImageError(
            "init_mask has no white part, so nothing of init_image may change. Paint white what "
            "to repaint."
        )
    return white


@torch.no_grad()
def prepare(
    init: InitImage, size: tuple[int, int], vae: Any, scale: int, device: torch.device
) -> Start:
    """Bring an image and its mask to the size of the result, and encode it.

    Args:
        init: The image.
        size: Width and height in pixels.
        vae: Its encoder is used.
        scale: Pixels per latent.
        device: Where to run; the weights of the VAE may be elsewhere until then.
    """
    image = to_rgb(init.image).resize(size, Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1.0
    encoded = vae.encode(pixels.to(device, vae.dtype)).latent_dist.mode()
    pixel_mask, latent_mask = None, None
    if init.mask is not None:
        # A scratch thinner than a pixel of the result is still to be repainted.
        white = pool(read_mask(init.mask), size, np.logical_or)
        pixel_mask = Image.fromarray(white)
        # A latent may change if any of its pixels may.
        latent_mask = F.max_pool2d(torch.from_numpy(white)[None, None].float(), scale)
    return Start(
        image=image,
        latents=encoded * vae.config.scaling_factor,
        pixel_mask=pixel_mask,
        latent_mask=latent_mask,
        strength=init.strength,
    )


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

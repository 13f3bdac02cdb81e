"""What is asked for: one request, from the command line, the server or a program to the sampler.

Its networks' part is put together for it and taken apart after it; the decoder is never changed
(paper, section 4.4).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor

from kosmosg.diffusion.control import Control
from kosmosg.diffusion.init_image import InitImage
from kosmosg.diffusion.lora import LoRA
from kosmosg.diffusion.schedulers import FEW_STEPS, name_of
from kosmosg.diffusion.settings import (
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    GUIDANCE_END,
    MAX_SIDE,
    choose_seeds,
    choose_size,
)
from kosmosg.models.encoder import Images, Texts
from kosmosg.prompts.images import identify
from kosmosg.utils.checks import check_integer, check_number


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerationRequest:
    """All that decides images, but for the weights; numbers are within their bounds.

    Attributes:
        prompt: A prompt, or several, with ``<i>`` where an image belongs.
        images: The image of a prompt, or several in the order of its markers; for several prompts,
            an image or a sequence each.
        negative_prompt: Text only; one for all prompts or one each. ``None`` and ``""`` are the
            null condition.
        prompt_embeds: In place of prompt and images, what ``encode_prompt`` made of them.
        negative_prompt_embeds: Likewise in place of the negative prompt; one row for all prompts,
            or one each.
        image_weights: How much of each image counts, over all prompts: 0 to 3, 1 is all.
        num_images_per_prompt: All images of a prompt follow each other.
        num_inference_steps: 1 to 999; at most 50 with LCM and TCD.
        guidance_scale: At least 1; 1 switches guidance off.
        guidance_end: Share of the steps after which there is no guidance, 0 to 1. What is left
            out is not computed (arXiv 2404.07724).
        width: In pixels, a multiple of 8. By default the size that the decoder was trained at, in
            the proportions of an image to start from or to be controlled by.
        height: Likewise.
        scheduler: A name in ``schedulers.SAMPLERS``, or a scheduler of diffusers.
        seed: Image n comes from ``seed + n``, or from the n-th of as many seeds as images; ``None``
            becomes a random one.
        lora: A correction of the U-Net, for this request alone.
        control: What fixes the layout, through a ControlNet.
        init: What to start from in place of noise, and what of it to keep.

    Raises:
        SettingError: Naming the number that is out of bounds.
    """

    prompt: Texts | None = None
    images: Images | Sequence[Images] | None = None
    negative_prompt: Texts | None = None
    prompt_embeds: Float[Tensor, "batch queries dim"] | None = None
    negative_prompt_embeds: Float[Tensor, "batch queries dim"] | None = None
    image_weights: Sequence[float] | None = None
    num_images_per_prompt: int = 1
    num_inference_steps: int = DEFAULT_STEPS
    guidance_scale: float = DEFAULT_GUIDANCE
    guidance_end: float = GUIDANCE_END
    width: int | None = None
    height: int | None = None
    scheduler: str | SchedulerMixin = DEFAULT_SAMPLER
    seed: int | Sequence[int] | None = None
    lora: LoRA | None = None
    control: Control | None = None
    init: InitImage | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            name: check_integer(name, getattr(self, name), 1, most)
            for name, most in (("num_images_per_prompt", 10_000), ("num_inference_steps", 999))
        }
        checked["guidance_scale"] = check_number("guidance_scale", self.guidance_scale, 1, 1000)
        checked["guidance_end"] = check_number("guidance_end", self.guidance_end, 0, 1)
        if isinstance(self.seed, str) or not isinstance(self.seed, Sequence):
            (checked["seed"],) = choose_seeds(self.seed, 1)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.init:
            self.init.check_steps(self.num_inference_steps)

    @property
    def distilled(self) -> bool:
        """Whether it asks for what only a distilled LoRA can do: few steps without guidance."""
        guided = self.guidance_scale > 1 and self.guidance_end > 0
        acts = self.lora is not None and self.lora.scale != 0
        return acts and not guided and self.num_inference_steps <= FEW_STEPS

    def sized(self, *, default: int, multiple: int, largest: int = MAX_SIDE) -> "GenerationRequest":
        """Choose the sides that are left open; see ``choose_size``.

        Raises:
            SettingError: If sides are out of bounds, or do not have a guide's proportions.
        """
        named = {"control_image": self.control, "init_image": self.init}
        width, height = choose_size(
            self.width,
            self.height,
            default=default,
            multiple=multiple,
            guides={name: guide.image for name, guide in named.items() if guide},
            largest=largest,
        )
        return replace(self, width=width, height=height)

    def recipe(self, seed: int) -> dict[str, Any]:
        """What makes one image again besides its prompt, for its metadata; files by SHA-256."""
        found: dict[str, Any] = {"num_images_per_prompt": 1}
        numbers = ("num_inference_steps", "guidance_scale", "guidance_end", "width", "height")
        found |= {name: getattr(self, name) for name in numbers}
        found |= {"scheduler": name_of(self.scheduler), "seed": seed}
        if self.lora:
            with Path(self.lora.file).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found |= {"lora": f"sha256:{digest}", "lora_scale": self.lora.scale}
        if control := self.control:
            found |= {"control_image": identify(control.image), "control_type": control.kind}
            found |= {"control_preprocess": control.preprocess, "control_scale": control.scale}
            found |= {"control_start": control.start, "control_end": control.end}
        if init := self.init:
            found |= {"init_image": identify(init.image), "prompt_strength": init.strength}
            found |= {"init_mask": identify(init.mask)} if init.mask else {}
        return found

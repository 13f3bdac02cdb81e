"""Trials that draw a picture: through this project, and through plain diffusers."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from benchmarks.measuring import synchronise
from benchmarks.request import GUIDANCE, PICTURE, PROMPT, SAMPLER, SEED, WHOLE
from benchmarks.workbench import Workbench
from kosmosg.checkpoints.stable_diffusion import make_decoder
from kosmosg.diffusion.sampling import draw_noise
from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.prompts.images import open_image
from kosmosg.serving.metadata import save_image


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What a trial drew, and how long 50 steps take, measured or computed."""

    seconds: float
    pictures: list[Image.Image]


class StepClock:
    """Notes when steps end, to compute what the steps that were not run would have taken."""

    def __init__(self, device: torch.device, steps: int):
        self.device = device
        self.missing = WHOLE - steps
        self.ends: list[float] = []

    def tick(self) -> None:
        """Note the end of a step; if all are run, without waiting for the device."""
        if self.missing:
            synchronise(self.device)
            self.ends.append(time.perf_counter())

    def whole(self, seconds: float) -> float:
        """Seconds with all steps, from those with the steps that were run."""
        if not self.missing:
            return seconds
        step = median(later - earlier for earlier, later in pairwise(self.ends))
        return seconds + self.missing * step


def draw(bench: Workbench, work: Callable[[Callable[[], None]], list[Image.Image]]) -> Drawing:
    """Time work that draws and that calls its argument after every step."""
    clock = StepClock(bench.device, bench.steps)
    synchronise(bench.device)
    start = time.perf_counter()
    pictures = work(clock.tick)
    synchronise(bench.device)
    return Drawing(seconds=clock.whole(time.perf_counter() - start), pictures=pictures)


def draw_whole(bench: Workbench, pipeline: KosmosGPipeline, count: int = 1) -> Drawing:
    """A prediction as the server makes it: open the picture, condition, draw, write files."""

    def work(tick: Callable[[], None]) -> list[Image.Image]:
        output = pipeline(
            PROMPT,
            [open_image(PICTURE)],
            num_images_per_prompt=count,
            num_inference_steps=bench.steps,
            guidance_scale=GUIDANCE,
            scheduler=SAMPLER,
            seed=SEED,
            check_safety=False,
            progress=lambda done, total: tick(),
        )
        for number, (image, recipe) in enumerate(zip(output.images, output.recipes, strict=True)):
            save_image(image, bench.folder / f"{number}.webp", quality=90, recipe=recipe)
        return output.images

    return draw(bench, work)


@dataclass(frozen=True, kw_only=True)
class PlainInputs:
    """What plain diffusers is given: embeddings of both sides of the guidance, and noise."""

    prompt_embeds: Tensor
    negative_prompt_embeds: Tensor
    latents: Tensor


def plain_inputs(bench: Workbench, pipeline: KosmosGPipeline) -> PlainInputs:
    """Make the embeddings and the noise of the request, so that both draw the same picture."""
    condition, negative = pipeline.encode_prompt(PROMPT, [open_image(PICTURE)])
    unet: Any = pipeline.decoder.unet
    side = unet.config.sample_size
    noise = draw_noise([SEED], unet.config.in_channels, side, side)
    return PlainInputs(
        # Copies, since what inference mode makes is of a kind that torch.compile may refuse.
        prompt_embeds=condition.clone(),
        negative_prompt_embeds=negative.clone(),
        latents=noise.to(bench.device, condition.dtype),
    )


def draw_plain(bench: Workbench, decoder: StableDiffusionPipeline, inputs: PlainInputs) -> Drawing:
    """What any Stable Diffusion v1.5 system does once it has its embeddings."""

    def work(tick: Callable[[], None]) -> list[Image.Image]:
        def on_step_end(pipeline: Any, step: int, timestep: Any, state: dict) -> dict:
            tick()
            return state

        draw_pictures: Any = decoder
        output = draw_pictures(
            prompt_embeds=inputs.prompt_embeds,
            negative_prompt_embeds=inputs.negative_prompt_embeds,
            latents=inputs.latents,
            num_inference_steps=bench.steps,
            guidance_scale=GUIDANCE,
            callback_on_step_end=on_step_end if bench.steps < WHOLE else None,
        )
        return output.images

    return draw(bench, work)


def plain_decoder(pipeline: KosmosGPipeline) -> StableDiffusionPipeline:
    """Put plain diffusers around the same networks."""
    networks = pipeline.decoder
    return make_decoder(
        networks.unet, networks.vae, make_scheduler(SAMPLER, networks.scheduler.config)
    )

"""Conditions → images: noise from seeds, diffusers' denoising loop, the VAE, chunk by chunk.

Nothing here depends on what else is in the batch: noise is drawn per image on the CPU in
float32, and the VAE decodes one latent after the other. An image is the same alone, in a batch,
in chunks, and on any device, up to the rounding of that device's matrix products.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kosmosg.diffusion.control import ControlMap
from kosmosg.diffusion.init_image import Start
from kosmosg.diffusion.pipelines import choose_pipeline, generators_after
from kosmosg.errors import OutOfMemoryError, WeightsError
from kosmosg.utils.memory import reporting_out_of_memory

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that decides the images, one row per image.

    Attributes:
        condition: Conditions, ``(rows, 77, 768)`` at full size.
        negative: What guidance leads away from; same shape.
        noise: Initial latents, standard normal, with the images' sides over the VAE's scale.
        steps: Number of denoising steps.
        guidance_scale: 1 switches guidance off.
        seeds: What the noise was drawn from. Samplers that draw more of it on the way go on from
            there; without seeds they draw at random.
        control: What fixes the layout.
        start: What to start from in place of noise.
    """

    condition: Float[Tensor, "rows queries dim"]
    negative: Float[Tensor, "rows queries dim"]
    noise: Float[Tensor, "rows channels height width"]
    steps: int
    guidance_scale: float
    seeds: Sequence[int] = ()
    control: ControlMap | None = None
    start: Start | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.noise)

    def part(self, rows: slice) -> "Request":
        """Take some of the rows."""
        return replace(
            self,
            condition=self.condition[rows],
            negative=self.negative[rows],
            noise=self.noise[rows],
            seeds=self.seeds[rows],
        )


@dataclass(kw_only=True)
class Timings:
    """Seconds spent in the parts of a request."""

    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0


def draw_noise(
    seeds: Sequence[int], channels: int, height: int, width: int
) -> Float[Tensor, "rows channels height width"]:
    """Draw the initial latents of every seed, in float32 on the CPU."""
    shape = (channels, height, width)
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    )


def sample(
    decoder: StableDiffusionPipeline, request: Request, progress: Progress | None = None
) -> tuple[list[Image.Image], Timings]:
    """Draw all rows of a request, in as many chunks as the memory asks for.

    Args:
        decoder: diffusers' pipeline without a text encoder, its scheduler set.
        request: What to draw.
        progress: Called after every step.

    Raises:
        OutOfMemoryError: If not even a single image fits.
        WeightsError: If U-Net or VAE yield values that are not finite.
    """
    progress = _forwards(progress) if progress else None
    chunk = len(request)
    images: list[Image.Image] = []
    timings = Timings()
    height, width = (side * decoder.vae_scale_factor for side in request.noise.shape[-2:])
    while len(images) < len(request):
        rows = slice(len(images), len(images) + chunk)
        report = _step_report(progress, done=rows.start, chunk=chunk, rows=len(request))
        try:
            with reporting_out_of_memory(f"One image of {width} × {height} pixels does not"):
                start = time.perf_counter()
                latents = denoise(decoder, request.part(rows), report)
                synchronise(latents)
                timings.denoise += time.perf_counter() - start
                start = time.perf_counter()
                drawn = [image for row in latents.split(1) for image in decode(decoder, row)]
                images += (
                    [request.start.finish(image) for image in drawn] if request.start else drawn
                )
                timings.decode += time.perf_counter() - start
        except OutOfMemoryError:
            if chunk == 1:
                raise
            chunk = -(-chunk // 2)
            logger.warning("Out of memory: going on with %d images at a time.", chunk)
    return images, timings


def denoise(
    decoder: StableDiffusionPipeline, request: Request, on_step_end: Callable | None = None
) -> Float[Tensor, "rows channels height width"]:
    """Run diffusers' denoising loop over all rows at once.

    Raises:
        WeightsError: If the result is not finite.
    """
    unet = decoder.unet
    noise = request.noise.to(device=unet.device, dtype=unet.dtype)
    pipeline, arguments = choose_pipeline(decoder, noise, request.control, request.start)

    def end_step(running: Any, step: int, timestep: Any, state: dict) -> dict:
        if request.start is not None:
            known = running.known_latents(step)
            state["latents"] = request.start.keep(state["latents"], known)
        return on_step_end(running, step, timestep, state) if on_step_end else state

    output: Any = pipeline(
        prompt_embeds=request.condition,
        negative_prompt_embeds=request.negative,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        generator=generators_after(request.noise, request.seeds),
        callback_on_step_end=end_step,
        output_type="latent",
        **arguments,
    )
    if not torch.isfinite(output.images).all():
        raise WeightsError(
            "The U-Net produced values that are not finite. If a LoRA or a ControlNet takes part, "
            "lower its strength or leave it out; if not, the weights are damaged, or do not bear "
            "this precision: convert them again, or use bfloat16 or float32."
        )
    return output.images


def decode(
    decoder: StableDiffusionPipeline, latents: Float[Tensor, "rows channels height width"]
) -> list[Image.Image]:
    """Turn latents into images: unscale, decode, to [0, 1], eight bits.

    Raises:
        WeightsError: If the VAE yields values that are not finite: they would become black.
    """
    vae = decoder.vae
    pixels = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    if not torch.isfinite(pixels).all():
        raise WeightsError(
            "The VAE produced values that are not finite. Its weights are damaged, or do not bear "
            "this precision: convert them again, or use bfloat16 or float32."
        )
    images: Any = decoder.image_processor.postprocess(pixels, output_type="pil")
    return images


def synchronise(tensor: Tensor) -> None:
    """Wait for the device, so that the clock measures the work and not its queueing."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _forwards(progress: Progress) -> Progress:
    """Let through only what goes forwards: a chunk that is tried again, halved, does not."""
    reached = 0.0

    def report(done: int, total: int) -> None:
        nonlocal reached
        if done / total > reached:
            reached = done / total
            progress(done, total)

    return report


def _step_report(
    progress: Progress | None, *, done: int, chunk: int, rows: int
) -> Callable[[StableDiffusionPipeline, int, Any, dict], dict]:
    """Make diffusers' ``callback_on_step_end``, counting over the chunks to come.

    The share that is done is that of rows, since a chunk may be smaller than those before it.
    """
    chunks = -(-rows // chunk)
    now = min(chunk, rows - done)

    def report(pipeline: StableDiffusionPipeline, step: int, timestep: Any, state: dict) -> dict:
        if progress:
            steps = pipeline.num_timesteps
            share = (done + now * (step + 1) / steps) / rows
            progress(round(share * chunks * steps), chunks * steps)
        return state

    return report

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
from kosmosg.diffusion.pipelines import choose_pipeline
from kosmosg.diffusion.settings import GUIDANCE_END, MAX_SEED
from kosmosg.errors import OutOfMemoryError, SettingError, WeightsError
from kosmosg.utils.memory import reporting_out_of_memory

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # steps done, steps in all
Watch = Callable[[Tensor], None]  # the latents after a step, of the images at work


@dataclass(frozen=True, kw_only=True)
class SamplingInputs:
    """A request brought to tensors: everything that decides the images, one row per image.

    Attributes:
        condition: Conditions, ``(rows, 77, 768)`` at full size.
        negative: What guidance leads away from; same shape.
        noise: Initial latents, standard normal, with the images' sides over the VAE's scale.
        steps: Number of denoising steps.
        guidance_scale: 1 switches guidance off.
        guidance_end: Share of the steps after which it is off, too.
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
    guidance_end: float = GUIDANCE_END
    seeds: Sequence[int] = ()
    control: ControlMap | None = None
    start: Start | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.noise)

    def part(self, rows: slice) -> "SamplingInputs":
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


def draw_seeds(
    generator: torch.Generator | Sequence[torch.Generator], seed: Any = None
) -> int | list[int]:
    """Draw the seed of the first image from a generator, or one for each from a sequence.

    Raises:
        SettingError: If there is a seed already, or these are no generators.
    """
    if seed is not None:
        raise SettingError("Both seed and generator are given. Leave one of them out.")
    alone = isinstance(generator, torch.Generator)
    given: list[Any] = [generator] if alone else list(generator)
    for each in given:
        if not isinstance(each, torch.Generator):
            raise SettingError(
                f"generator must be one of torch, or one for each image, not {each!r:.80}."
            )
    seeds = [int(torch.randint(MAX_SEED + 1, (), generator=g, device=g.device)) for g in given]
    return seeds[0] if alone else seeds


def draw_noise(
    seeds: Sequence[int], channels: int, height: int, width: int
) -> Float[Tensor, "rows channels height width"]:
    """Draw the initial latents of every seed, in float32 on the CPU."""
    shape = (channels, height, width)
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    )


def sample(
    decoder: StableDiffusionPipeline,
    inputs: SamplingInputs,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> tuple[list[Image.Image], Timings]:
    """Sample all rows of a request, in as many chunks as the memory asks for.

    Args:
        decoder: diffusers' pipeline without a text encoder, its scheduler set.
        inputs: What to sample.
        progress: Called after every step. What it raises ends the request.
        watch: Called before it, with the latents.

    Raises:
        OutOfMemoryError: If not even a single image fits.
        WeightsError: If U-Net or VAE yield values that are not finite.
    """
    progress = _forwards(progress) if progress else None
    chunk = len(inputs)
    images: list[Image.Image] = []
    timings = Timings()
    height, width = (side * decoder.vae_scale_factor for side in inputs.noise.shape[-2:])
    while len(images) < len(inputs):
        rows = slice(len(images), len(images) + chunk)
        report = _step_report(progress, watch, done=rows.start, chunk=chunk, rows=len(inputs))
        try:
            with reporting_out_of_memory(f"One image of {width} × {height} pixels does not"):
                start = time.perf_counter()
                latents = denoise(decoder, inputs.part(rows), report)
                synchronise(latents)
                timings.denoise += time.perf_counter() - start
                start = time.perf_counter()
                decoded = [image for row in latents.split(1) for image in decode(decoder, row)]
                finish = inputs.start.finish if inputs.start else lambda image: image
                images += map(finish, decoded)
                timings.decode += time.perf_counter() - start
        except OutOfMemoryError:
            if chunk == 1:
                raise
            chunk = -(-chunk // 2)
            logger.warning("Out of memory: going on with %d images at a time.", chunk)
    return images, timings


def denoise(
    decoder: StableDiffusionPipeline, inputs: SamplingInputs, on_step_end: Callable | None = None
) -> Float[Tensor, "rows channels height width"]:
    """Run diffusers' denoising loop over all rows at once.

    Raises:
        WeightsError: If the result is not finite.
    """
    unet = decoder.unet
    # The weights themselves may be elsewhere until they are needed.
    noise = inputs.noise.to(device=decoder._execution_device, dtype=unet.dtype)
    pipeline, arguments = choose_pipeline(decoder, noise, inputs.control, inputs.start)
    seen = ["latents"]
    if inputs.guidance_end < 1:  # what guidance doubles, in the words of each pipeline
        doubled = {"prompt_embeds", "image", "control_image"}
        seen += sorted(doubled.intersection(pipeline._callback_tensor_inputs))

    def end_step(running: Any, step: int, timestep: Any, state: dict) -> dict:
        if inputs.start is not None:
            known = running.known_latents(step)
            state["latents"] = inputs.start.keep(state["latents"], known)
        if (step + 1) / running.num_timesteps >= inputs.guidance_end:
            state |= end_guidance(running, state)
        return on_step_end(running, step, timestep, state) if on_step_end else state

    output: Any = pipeline(
        prompt_embeds=inputs.condition,
        negative_prompt_embeds=inputs.negative,
        num_inference_steps=inputs.steps,
        guidance_scale=inputs.guidance_scale if inputs.guidance_end > 0 else 1.0,
        generator=generators_after(inputs.noise, inputs.seeds),
        callback_on_step_end=end_step,
        callback_on_step_end_tensor_inputs=seen,
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


def end_guidance(pipeline: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave guidance out of all steps to come, and what leads away from the negative prompt.

    Args:
        pipeline: One that denoises.
        state: Latents, and whatever guidance doubles: what leads away, then what leads on.

    Returns:
        The second half of what was doubled.
    """
    if not pipeline.do_classifier_free_guidance:
        return {}
    pipeline._guidance_scale = 1.0
    return {name: rows.chunk(2)[1] for name, rows in state.items() if name != "latents"}


def decode(
    decoder: StableDiffusionPipeline, latents: Float[Tensor, "rows channels height width"]
) -> list[Image.Image]:
    """Turn latents into images: unscale, decode, to [0, 1], eight bits.

    Raises:
        WeightsError: If the VAE yields values that are not finite: they would become black.
    """
    vae = decoder.vae
    scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
    pixels = vae.decode(scaled, return_dict=False)[0]
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
    progress: Progress | None, watch: Watch | None, *, done: int, chunk: int, rows: int
) -> Callable[[StableDiffusionPipeline, int, Any, dict], dict]:
    """Make diffusers' ``callback_on_step_end``, counting over the chunks to come.

    The share that is done is that of rows, since a chunk may be smaller than those before it.
    """
    chunks = -(-rows // chunk)
    now = min(chunk, rows - done)

    def report(pipeline: StableDiffusionPipeline, step: int, timestep: Any, state: dict) -> dict:
        if watch:
            watch(state["latents"])
        if progress:
            steps = pipeline.num_timesteps
            share = (done + now * (step + 1) / steps) / rows
            progress(round(share * chunks * steps), chunks * steps)
        return state

    return report


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

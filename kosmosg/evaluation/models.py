"""Models as plain functions: prompts, their images and seeds in, images out.

KOSMOS-G and CLIP go through the same decoding, so that a comparison is one of conditions alone:
same noise, sampler, steps and guidance. Any pipeline of diffusers can stand in their place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from transformers import CLIPTextModel

from kosmosg.checkpoints.loading import cannot_load, check_config, load_component
from kosmosg.checkpoints.stable_diffusion import load_clip_tokenizer, load_scheduler, make_decoder
from kosmosg.diffusion.sampling import draw_noise, generators_after
from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.diffusion.settings import DEFAULT_SAMPLER
from kosmosg.errors import EvaluationError, WeightsError
from kosmosg.evaluation.protocol import ImageJob
from kosmosg.models.kosmosg import KosmosGConfig
from kosmosg.pipeline import KosmosGPipeline
from kosmosg.prompts.prompt import parse_prompt
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.files import reason
from kosmosg.utils.memory import reporting_out_of_memory

Generate = Callable[
    [Sequence[str], Sequence[Sequence[Image.Image]], Sequence[int]], list[Image.Image]
]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How images are sampled, the same for all models."""

    steps: int
    guidance_scale: float
    scheduler: str = DEFAULT_SAMPLER


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What generates.

    Attributes:
        source: A weights directory; or the folder or Hub id of a pipeline of diffusers.
        diffusers: Which of the two.
    """

    source: str | Path
    diffusers: bool = False

    def open(self, sampling: Sampling, *, device: torch.device, dtype: torch.dtype) -> Generate:
        """Make it a plain function.

        Args:
            sampling: How images are sampled.
            device: Where to.
            dtype: Precision.

        Raises:
            WeightsError: If it cannot be opened.
        """
        if self.diffusers:
            pipeline = load_diffusers(self.source, device=device, dtype=dtype)
            return diffusers_generator(pipeline, sampling)
        ours = KosmosGPipeline.from_pretrained(self.source, device=device, torch_dtype=dtype)
        return kosmosg_generator(ours, sampling)

    def check_prompts(self, jobs: Sequence[ImageJob]) -> None:
        """Check that no prompt is too long, before images are generated for hours.

        A pipeline of diffusers cuts what is too long for it.

        Raises:
            EvaluationError: If one is.
            WeightsError: If the model's tokenizer or configuration cannot be read.
        """
        if self.diffusers:
            return
        folder = Path(self.source)
        tokenizer = KosmosGTokenizer.from_pretrained(folder / "tokenizer")
        check_config(folder / "kosmosg" / "config.json", "kosmosg")
        try:
            config = KosmosGConfig.from_pretrained(folder / "kosmosg", local_files_only=True)
            slots, most = config.image_slots, config.max_tokens
        except Exception as error:
            # A configuration of nonsense fails anywhere in the constructors.
            raise cannot_load("kosmosg", folder / "kosmosg", error) from error
        for job in jobs:
            prompt = parse_prompt(job.prompt, len(job.images))
            tokens = len(tokenizer.tokenize_prompt(prompt, slots).ids)
            if tokens > most:
                raise EvaluationError(
                    f"The prompt {job.prompt:.80} … is {tokens} tokens long, and {folder} takes at "
                    f"most {most}. Shorten it where it comes from."
                )


def kosmosg_generator(pipeline: KosmosGPipeline, sampling: Sampling) -> Generate:
    """Generate with KOSMOS-G, without its safety checker: a black image is no score."""
    # A mistake in the sampler is told now, and not after the preparations.
    make_scheduler(sampling.scheduler, pipeline.scheduler.config, sampling.steps)

    def generate(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return pipeline(
            list(prompts),
            list(images),
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            scheduler=sampling.scheduler,
            seed=list(seeds),
            check_safety=False,
        ).images

    return generate


def clip_generator(
    directory: Path, sampling: Sampling, *, device: torch.device, dtype: torch.dtype
) -> Generate:
    """Generate with the frozen decoder and its own CLIP, as Stable Diffusion does.

    Args:
        directory: Weights directory that also holds ``text_encoder`` and ``clip_tokenizer``.
        sampling: How to sample.
        device: Where to.
        dtype: Precision.

    Raises:
        WeightsError: If a part is missing or damaged.
    """
    decoder = make_decoder(
        load_component(UNet2DConditionModel, directory / "unet", dtype=dtype),
        load_component(AutoencoderKL, directory / "vae", dtype=dtype),
        load_scheduler(directory / "scheduler"),
    )
    decoder.register_modules(
        text_encoder=load_component(CLIPTextModel, directory / "text_encoder", dtype=dtype),
        tokenizer=load_clip_tokenizer(directory / "clip_tokenizer"),
    )
    return diffusers_generator(decoder.to(device), sampling)


def load_diffusers(source: str | Path, *, device: torch.device, dtype: torch.dtype) -> Any:
    """Open a pipeline of diffusers, without a safety checker: a black image is no score.

    Args:
        source: Folder or Hub repository; of its files only safetensors are read.
        device: Where to.
        dtype: Precision.

    Raises:
        WeightsError: If it cannot be had.
    """
    try:
        pipeline: Any = DiffusionPipeline.from_pretrained(
            source,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=Path(source).is_dir(),
        )
    except Exception as error:
        # diffusers, transformers and the Hub client each have errors of their own.
        raise WeightsError(
            f"{source} cannot be opened as a pipeline of diffusers ({reason(error)}). Give a "
            "folder in its layout or a Hub repository; `python -m kosmosg download "
            "stable-diffusion text-encoder` makes such a folder of Stable Diffusion v1.5."
        ) from error
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    return pipeline.to(device)


def diffusers_generator(pipeline: Any, sampling: Sampling) -> Generate:
    """Generate with a text-to-image pipeline of diffusers, which takes words alone.

    If it has a U-Net, that samples from the noise and with the sampler that KOSMOS-G would have;
    others keep their own sampler. The VAE decodes one image after the other, as ours does.

    Args:
        pipeline: Such as ``StableDiffusionPipeline``, on its device.
        sampling: How to sample.
    """
    pipeline.set_progress_bar_config(disable=True)
    unet = getattr(pipeline, "unet", None)
    if unet is not None:
        pipeline.scheduler = make_scheduler(
            sampling.scheduler, pipeline.scheduler.config, sampling.steps
        )
    vae = getattr(pipeline, "vae", None)
    if vae is not None and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()

    def noise(seeds: Sequence[int]) -> dict[str, Any]:
        if unet is None:
            return {"generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds]}
        channels, side = unet.config.in_channels, unet.config.sample_size
        latents = draw_noise(seeds, channels, side, side)
        return {
            "latents": latents.to(device=unet.device, dtype=unet.dtype),
            "generator": generators_after(latents, seeds),
        }

    @torch.inference_mode()
    def generate(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        assert not any(images), "a pipeline for text takes no images"
        with reporting_out_of_memory(f"{len(prompts)} images at once do not", "a lower --batch"):
            pixels = pipeline(
                list(prompts),
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                output_type="pt",
                **noise(seeds),
            ).images
        if not torch.isfinite(pixels).all():
            # They would become black images, which have scores, too.
            raise WeightsError(
                "The pipeline produced values that are not finite. Its weights are damaged, or do "
                "not bear this precision: choose --dtype bfloat16 or float32."
            )
        return VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(pixels))

    return generate

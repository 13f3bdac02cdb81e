"""Prompt and images in, images out: KOSMOS-G and Stable Diffusion as one pipeline of diffusers.

What denoises and decodes are diffusers' own pipelines without a text encoder, put around the same
networks for one request. Everything that takes ``prompt_embeds`` can be used in their place with
the result of ``encode_prompt`` (paper, section 4.4).
"""

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, SchedulerMixin, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPImageProcessorPil

from kosmosg.checkpoints.folder import CONTROLNETS, OPTIONAL_COMPONENTS
from kosmosg.checkpoints.pipeline import PretrainedPipeline
from kosmosg.checkpoints.stable_diffusion import make_decoder
from kosmosg.diffusion.conditions import find_conditions, find_negatives
from kosmosg.diffusion.control import Control, ControlNets
from kosmosg.diffusion.init_image import InitImage
from kosmosg.diffusion.inputs import prepare_inputs
from kosmosg.diffusion.lora import LoRA, attached
from kosmosg.diffusion.output import KosmosGOutput, check_output_type
from kosmosg.diffusion.request import GenerationRequest
from kosmosg.diffusion.safety import find_unsafe
from kosmosg.diffusion.sampling import Progress, Watch, draw_seeds, sample, synchronise
from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.diffusion.settings import (
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    GUIDANCE_END,
    choose_seeds,
)
from kosmosg.errors import WeightsError
from kosmosg.models.encoder import Images, PromptEncoder, Texts, pair, pair_negatives
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.memory import reporting_out_of_memory


class KosmosGPipeline(StableDiffusionMixin, PretrainedPipeline):
    """KOSMOS-G with its Stable Diffusion decoder."""

    model_cpu_offload_seq = "kosmosg->unet->vae"
    _optional_components: ClassVar = list(OPTIONAL_COMPONENTS)
    _exclude_from_cpu_offload: ClassVar = ["safety_checker"]

    def __init__(
        self,
        kosmosg: KosmosG,
        tokenizer: KosmosGTokenizer,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: SchedulerMixin,
        safety_checker: StableDiffusionSafetyChecker | None = None,
        feature_extractor: CLIPImageProcessorPil | None = None,
    ):
        super().__init__()
        _check_fit(kosmosg, unet)
        if safety_checker is not None and feature_extractor is None:
            raise WeightsError(
                "There is a safety_checker but no feature_extractor, which prepares images for it. "
                "Give both or neither."
            )
        self.register_modules(
            kosmosg=kosmosg,
            tokenizer=tokenizer,
            unet=unet,
            vae=vae,
            scheduler=scheduler,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
        )

    @cached_property
    def controlnets(self) -> ControlNets:
        """The networks that fix layouts: those beside the weights first."""
        # Weights that are no Stable Diffusion v1.5 may come with ControlNets of their own.
        own = [self.folder / CONTROLNETS.name] if self.folder else []
        return ControlNets([*own, CONTROLNETS])

    @property
    def encoder(self) -> PromptEncoder:
        """What turns prompts into conditions."""
        return PromptEncoder(
            kosmosg=self.kosmosg, tokenizer=self.tokenizer, device=self._execution_device
        )

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def default_size(self) -> int:
        """Side in pixels of the images that the decoder was trained on."""
        return self.unet.config.sample_size * self.vae_scale_factor

    @torch.no_grad()
    def encode_prompt(
        self,
        prompt: Texts,
        images: Images | Sequence[Images] | None = None,
        negative_prompt: Texts | None = None,
        image_weights: Sequence[float] | None = None,
    ) -> tuple[Float[Tensor, "batch queries dim"], Float[Tensor, "batch queries dim"]]:
        """Turn prompts into conditions for any Stable Diffusion v1.5 pipeline.

        Args:
            prompt: A prompt, or several.
            images: The image of a prompt, or several in the order of its markers; for several
                prompts, an image or a sequence each.
            negative_prompt: Text only; one for all prompts or one each. ``None`` and ``""`` are
                the null condition.
            image_weights: How much of each image counts, over all prompts: 0 to 3, 1 is all.

        Returns:
            ``prompt_embeds`` and ``negative_prompt_embeds``, each ``(batch, 77, 768)`` at full
            size.

        Raises:
            PromptError: If markers and images do not fit, or a prompt is too long.
            SettingError: If the weights do not fit the images.
        """
        prompts, shown = pair(prompt, images)
        negatives = pair_negatives(negative_prompt, len(prompts))
        return (
            self.encoder.conditions(prompts, shown, image_weights),
            self.encoder.negatives(negatives),
        )

    def __call__(
        self,
        prompt: Texts | None = None,
        images: Images | Sequence[Images] | None = None,
        negative_prompt: Texts | None = None,
        *,
        prompt_embeds: Float[Tensor, "batch queries dim"] | None = None,
        negative_prompt_embeds: Float[Tensor, "batch queries dim"] | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float = DEFAULT_GUIDANCE,
        guidance_end: float = GUIDANCE_END,
        width: int | None = None,
        height: int | None = None,
        scheduler: str | SchedulerMixin = DEFAULT_SAMPLER,
        seed: int | Sequence[int] | None = None,
        image_weights: Sequence[float] | None = None,
        lora: LoRA | None = None,
        control: Control | None = None,
        init: InitImage | None = None,
        check_safety: bool = True,
        progress: Progress | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Generate images: ``generate`` with a ``GenerationRequest`` of these arguments.

        A ``generator`` of torch, or one for each image, chooses the seeds in place of ``seed``.
        ``output_type`` is "pil", or "np" or "pt" for values from 0 to 1. Without ``return_dict``
        the values of a ``KosmosGOutput`` come as a tuple.

        Raises:
            SettingError: If both a seed and a generator are given, or there is no such type.
        """
        check_output_type(output_type)
        request = GenerationRequest(
            prompt=prompt,
            images=images,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            image_weights=image_weights,
            num_images_per_prompt=num_images_per_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_end=guidance_end,
            width=width,
            height=height,
            scheduler=scheduler,
            seed=seed if generator is None else draw_seeds(generator, seed),
            lora=lora,
            control=control,
            init=init,
        )
        output = self.generate(request, check_safety=check_safety, progress=progress)
        output.convert(output_type)
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def generate(
        self,
        request: GenerationRequest,
        *,
        check_safety: bool = True,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> KosmosGOutput:
        """Generate images.

        Args:
            request: What is asked for.
            check_safety: Ask the safety checker, if the weights have one. It only flags; what to
                do with a flagged image is up to the caller.
            progress: Called with steps done and steps in all. What it raises ends the request.
            watch: Called before it with the latents after a step, of the images at work.

        Raises:
            PromptError: If markers and images do not fit, a prompt is too long, or embeddings are
                not of the decoder's shape.
            SettingError: If a number or name lies outside what is allowed.
            LoRAError: If the LoRA is damaged or for another U-Net.
            ControlError: If a ControlNet is missing or does not fit.
            OutOfMemoryError: If not even one image fits into memory.
        """
        request = self.sized(request)
        decoder = self.decoder_with(
            request.scheduler, request.num_inference_steps, distilled=request.distilled
        )
        each = request.num_images_per_prompt
        with attached(self.unet, request.lora):
            start = time.perf_counter()
            with reporting_out_of_memory("The prompt and its images do not"):
                condition, told = find_conditions(request, self.encoder)
                negative, refused = find_negatives(request, self.encoder, condition)
            synchronise(condition)
            encode_seconds = time.perf_counter() - start
            seeds = choose_seeds(request.seed, len(condition) * each)
            inputs = prepare_inputs(
                request, condition, negative, seeds, decoder=decoder, controlnets=self.controlnets
            )
            images, timings = sample(decoder, inputs, progress, watch)
        timings.encode = encode_seconds
        checker = self.safety_checker if check_safety else None
        flagged = find_unsafe(images, checker, self.feature_extractor)
        self.maybe_free_model_hooks()
        return KosmosGOutput(
            images=images,
            seeds=seeds,
            recipes=[
                told[n // each] | refused[n // each] | request.recipe(seed)
                for n, seed in enumerate(seeds)
            ],
            flagged=flagged,
            timings=timings,
        )

    def sized(self, request: GenerationRequest, **bounds: int) -> GenerationRequest:
        """Choose the sides that a request leaves open; see ``GenerationRequest.sized``."""
        multiple = max(8, self.vae_scale_factor)  # 8 is what diffusers checks for
        return request.sized(default=self.default_size, multiple=multiple, **bounds)

    def decoder_with(
        self,
        scheduler: str | SchedulerMixin,
        steps: int | None = None,
        *,
        distilled: bool = False,
    ) -> StableDiffusionPipeline:
        """Pair the decoder's networks with a fresh scheduler; no request leaves one behind.

        Raises:
            SettingError: If the name is unknown, or it cannot take so many steps.
        """
        made = make_scheduler(scheduler, self.scheduler.config, steps, distilled=distilled)
        return make_decoder(self.unet, self.vae, made)


def _check_fit(kosmosg: KosmosG, unet: Any) -> None:
    dim, wanted = kosmosg.config.aligner_config.dim, unet.config.cross_attention_dim
    if dim != wanted:
        raise WeightsError(
            f"AlignerNet yields conditions {dim} wide, but the U-Net takes {wanted}. These "
            "parts do not belong together; the decoder must be a Stable Diffusion v1.5."
        )

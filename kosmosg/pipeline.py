"""Prompt and pictures in, pictures out: the glue between KOSMOS-G and Stable Diffusion.

The decoder is diffusers' own ``StableDiffusionPipeline`` without a text encoder; it is never
modified. Everything that takes ``prompt_embeds`` can be used in its place with the result of
``encode_prompt`` (paper, section 4.4).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    SchedulerMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kosmosg.checkpoints.folder import CONTROLNETS, check_layout, write_model_index
from kosmosg.checkpoints.loading import load_component, load_model
from kosmosg.checkpoints.stable_diffusion import load_scheduler, make_decoder
from kosmosg.diffusion import control as controls
from kosmosg.diffusion import init_image as init_images
from kosmosg.diffusion.canvas import choose_size
from kosmosg.diffusion.control import Control, ControlNets
from kosmosg.diffusion.init_image import InitImage
from kosmosg.diffusion.lora import LoRA, attached
from kosmosg.diffusion.request import Techniques
from kosmosg.diffusion.safety import SafetyChecker
from kosmosg.diffusion.sampling import Progress, Request, Timings, draw_noise, sample, synchronise
from kosmosg.diffusion.schedulers import make_scheduler, name_of
from kosmosg.diffusion.settings import DEFAULT_GUIDANCE, DEFAULT_SAMPLER, DEFAULT_STEPS, Settings
from kosmosg.errors import SettingError, WeightsError
from kosmosg.models.encoder import Conditioner, Images, Texts, pair
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.images import identify
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.memory import reporting_out_of_memory


@dataclass(frozen=True, kw_only=True)
class KosmosGOutput:
    """Pictures, prompt by prompt, with all pictures of a prompt side by side.

    Attributes:
        images: RGB pictures.
        seeds: The seed that makes each picture again, alone.
        recipes: All settings that do, for the metadata of a file.
        flagged: What the safety checker says of each; all false if it was not asked.
        timings: Seconds for encode, denoise and decode.
    """

    images: list[Image.Image]
    seeds: list[int]
    recipes: list[dict[str, Any]]
    flagged: list[bool]
    timings: Timings


class KosmosGPipeline:
    """KOSMOS-G with its Stable Diffusion decoder."""

    def __init__(
        self,
        kosmosg: KosmosG,
        tokenizer: KosmosGTokenizer,
        decoder: StableDiffusionPipeline,
        safety_checker: SafetyChecker | None = None,
        controlnets: ControlNets | None = None,
    ):
        self.conditioner = Conditioner(kosmosg, tokenizer)
        self.decoder = decoder
        self.safety_checker = safety_checker
        self.controlnets = controlnets or ControlNets([CONTROLNETS])
        self._check_fit()

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
    ) -> "KosmosGPipeline":
        """Open a weights directory.

        Args:
            directory: Diffusers layout, as ``kosmosg convert`` writes it.
            torch_dtype: Precision; float16 on CUDA and float32 elsewhere by default.
            device: CUDA if there is one, by default.

        Raises:
            WeightsError: If something is missing, damaged or of another model.
            SettingError: If there is no such device.
        """
        directory = Path(directory)
        check_layout(directory)
        device = choose_device(device)
        dtype = torch_dtype or (torch.float16 if device.type == "cuda" else torch.float32)
        pipeline = cls(
            load_model(KosmosG, directory / "kosmosg", dtype=dtype),
            KosmosGTokenizer.from_pretrained(directory / "tokenizer"),
            make_decoder(
                load_component(UNet2DConditionModel, directory / "unet", dtype=dtype),
                load_component(AutoencoderKL, directory / "vae", dtype=dtype),
                load_scheduler(directory / "scheduler"),
            ),
            SafetyChecker.from_pretrained(directory, dtype=dtype),
            # Weights that are no Stable Diffusion v1.5 may come with ControlNets of their own.
            ControlNets([directory / CONTROLNETS.name, CONTROLNETS]),
        )
        return pipeline.to(device)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a weights directory: diffusers layout, safetensors only."""
        directory = Path(directory)
        self.kosmosg.save_pretrained(directory / "kosmosg")
        self.conditioner.tokenizer.save_pretrained(directory / "tokenizer")
        for part in ("unet", "vae", "scheduler"):
            getattr(self.decoder, part).save_pretrained(directory / part)
        if self.safety_checker:
            self.safety_checker.save_pretrained(directory)
        write_model_index(directory)

    def to(self, device: str | torch.device) -> "KosmosGPipeline":
        """Move all networks to a device."""
        self.conditioner.to(device)
        networks: list[Any] = [self.decoder]
        if self.safety_checker:
            networks.append(self.safety_checker.model)
        for network in networks:
            network.to(device)
        return self

    @property
    def kosmosg(self) -> KosmosG:
        """The language model with AlignerNet."""
        return self.conditioner.kosmosg

    @property
    def default_size(self) -> int:
        """Side in pixels of the pictures that the decoder was trained on."""
        return self.decoder.unet.config.sample_size * self.decoder.vae_scale_factor

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
            images: The picture of a prompt, or several in the order of its markers; for several
                prompts, a picture or a sequence each.
            negative_prompt: Text only; one for all prompts or one each. ``None`` and ``""`` are
                the null condition.
            image_weights: How much of each picture counts, over all prompts: 0 to 3, 1 is all.

        Returns:
            ``prompt_embeds`` and ``negative_prompt_embeds``, each ``(batch, 77, 768)`` at full
            size.

        Raises:
            PromptError: If markers and images do not fit, or a prompt is too long.
            SettingError: If the weights do not fit the pictures.
        """
        prompts, pictures, negatives = pair(prompt, images, negative_prompt)
        return (
            self.conditioner.conditions(prompts, pictures, image_weights),
            self.conditioner.negatives(negatives),
        )

    @torch.inference_mode()
    def __call__(
        self,
        prompt: Texts,
        images: Images | Sequence[Images] | None = None,
        negative_prompt: Texts | None = None,
        *,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float = DEFAULT_GUIDANCE,
        width: int | None = None,
        height: int | None = None,
        scheduler: str | SchedulerMixin = DEFAULT_SAMPLER,
        seed: int | None = None,
        image_weights: Sequence[float] | None = None,
        lora: LoRA | None = None,
        control: Control | None = None,
        init: InitImage | None = None,
        check_safety: bool = True,
        progress: Progress | None = None,
    ) -> KosmosGOutput:
        """Draw pictures.

        Args:
            prompt: A prompt, or several, with ``<i>`` where a picture belongs.
            images: See ``encode_prompt``.
            negative_prompt: See ``encode_prompt``.
            num_images_per_prompt: All pictures of a prompt follow each other.
            num_inference_steps: 1 to 999; at most 50 with LCM.
            guidance_scale: At least 1; 1 switches guidance off.
            width: In pixels, a multiple of 8. By default the size that the decoder was trained
                at, in the proportions of a picture to start from or to be controlled by.
            height: Likewise.
            scheduler: A name in ``schedulers.SAMPLERS``, or a scheduler of diffusers.
            seed: Picture n is drawn from ``seed + n``; random by default.
            image_weights: See ``encode_prompt``.
            lora: A correction of the U-Net, for this call alone.
            control: What fixes the layout, through a ControlNet.
            init: What to start from in place of noise, and what of it to keep.
            check_safety: Ask the safety checker, if the weights have one. It only flags; what to
                do with a flagged picture is up to the caller.
            progress: Called with steps done and steps in all.

        Raises:
            PromptError: If markers and images do not fit, or a prompt is too long.
            SettingError: If a number or name lies outside what is allowed.
            LoRAError: If the LoRA is damaged or for another U-Net.
            ControlError: If a ControlNet is missing or does not fit.
            OutOfMemoryError: If not even one picture fits into memory.
        """
        techniques = Techniques(lora=lora, control=control, init=init)
        settings = Settings.check(
            num_images_per_prompt=num_images_per_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            size=self._choose_size(width, height, techniques),
            scheduler=name_of(scheduler),
            seed=seed,
        )
        prompts, pictures, negatives = pair(prompt, images, negative_prompt)
        decoder = self.decoder_with(scheduler, settings.num_inference_steps)
        if init:
            init.check_steps(settings.num_inference_steps)

        with attached(self.decoder.unet, lora):
            start = time.perf_counter()
            with reporting_out_of_memory("The prompt and its images do not"):
                condition, negative = self.encode_prompt(
                    prompts, pictures, negatives, image_weights
                )
            synchronise(condition)
            encode_seconds = time.perf_counter() - start
            seeds = settings.seeds(len(prompts))
            request = self._request(condition, negative, seeds, settings, techniques)
            drawn, timings = sample(decoder, request, progress)
        timings.encode = encode_seconds
        flagged = [False] * len(drawn)
        if check_safety and self.safety_checker:
            flagged = self.safety_checker.flagged(drawn)
        rows = [n // settings.num_images_per_prompt for n in range(len(seeds))]
        extra = techniques.recipe()
        if image_weights is not None:
            extra["image_weights"] = list(image_weights)
        shown = [{"images": list(map(identify, each))} if each else {} for each in pictures]
        recipes = [
            settings.recipe(prompts[row], negatives[row], seed) | shown[row] | extra
            for row, seed in zip(rows, seeds, strict=True)
        ]
        return KosmosGOutput(
            images=drawn, seeds=seeds, recipes=recipes, flagged=flagged, timings=timings
        )

    def decoder_with(
        self, scheduler: str | SchedulerMixin, steps: int | None = None
    ) -> StableDiffusionPipeline:
        """Pair the decoder's networks with a fresh scheduler; no request leaves one behind.

        Raises:
            SettingError: If the name is unknown, or it cannot take so many steps.
        """
        fresh = make_scheduler(scheduler, self.decoder.scheduler.config, steps)
        return make_decoder(self.decoder.unet, self.decoder.vae, fresh)

    def _choose_size(
        self, width: int | None, height: int | None, techniques: Techniques
    ) -> tuple[int, int]:
        return choose_size(
            width,
            height,
            default=self.default_size,
            multiple=max(8, self.decoder.vae_scale_factor),  # 8 is what diffusers checks for
            guides=techniques.guides,
        )

    def _request(
        self,
        condition: Tensor,
        negative: Tensor,
        seeds: Sequence[int],
        settings: Settings,
        techniques: Techniques,
    ) -> Request:
        """Bring everything that decides the pictures to the same size and number of rows."""
        size = settings.width, settings.height
        unet, vae, scale = self.decoder.unet, self.decoder.vae, self.decoder.vae_scale_factor
        control, init = techniques.control, techniques.init
        with reporting_out_of_memory("The noise of all pictures, or what guides them, does not"):
            return Request(
                condition=condition.repeat_interleave(settings.num_images_per_prompt, dim=0),
                negative=negative.repeat_interleave(settings.num_images_per_prompt, dim=0),
                noise=draw_noise(
                    seeds, unet.config.in_channels, size[1] // scale, size[0] // scale
                ),
                steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                seeds=seeds,
                control=control and controls.prepare(control, size, self.controlnets, unet),
                start=init and init_images.prepare(init, size, vae, scale),
            )

    def _check_fit(self) -> None:
        dim = self.kosmosg.config.aligner_config.dim
        wanted = self.decoder.unet.config.cross_attention_dim
        if dim != wanted:
            raise WeightsError(
                f"AlignerNet yields conditions {dim} wide, but the U-Net takes {wanted}. These "
                "parts do not belong together; the decoder must be a Stable Diffusion v1.5."
            )


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Take the device that was named, or CUDA if there is one, or the CPU.

    Raises:
        SettingError: If there is no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"device {device!r} cannot be used here ({reason}). Try cpu.") from error
    return chosen

"""Prompt and images in, images out: KOSMOS-G and Stable Diffusion as one pipeline of diffusers.

What denoises and decodes are diffusers' own pipelines without a text encoder, put around the same
networks for one request. Everything that takes ``prompt_embeds`` can be used in their place with
the result of ``encode_prompt`` (paper, section 4.4).
"""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    SchedulerMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from diffusers.utils import BaseOutput
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil

from kosmosg.checkpoints.folder import (
    COMPONENTS,
    CONTROLNETS,
    OPTIONAL_COMPONENTS,
    check_layout,
    locate_weights,
    open_part,
    write_model_index,
)
from kosmosg.checkpoints.publishing import publish
from kosmosg.checkpoints.stable_diffusion import make_decoder
from kosmosg.diffusion import control as controls
from kosmosg.diffusion import init_image as init_images
from kosmosg.diffusion.control import Control, ControlNets
from kosmosg.diffusion.init_image import InitImage
from kosmosg.diffusion.lora import LoRA, attached
from kosmosg.diffusion.request import GenerationRequest
from kosmosg.diffusion.safety import find_unsafe
from kosmosg.diffusion.sampling import (
    Progress,
    SamplingInputs,
    Timings,
    draw_noise,
    sample,
    synchronise,
)
from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.diffusion.settings import (
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    MAX_SEED,
    choose_seeds,
)
from kosmosg.errors import PromptError, SettingError, WeightsError
from kosmosg.models.encoder import Images, PromptEncoder, Texts, check_embeds, pair, pair_negatives
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.images import identify
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.memory import reporting_out_of_memory


@dataclass
class KosmosGOutput(BaseOutput):
    """Images, prompt by prompt, with all images of a prompt side by side.

    Attributes:
        images: RGB images.
        seeds: The seed that makes each image again, alone.
        recipes: All settings that do, for the metadata of a file.
        flagged: What the safety checker says of each; all false if it was not asked.
        timings: Seconds for encode, denoise and decode.
    """

    images: list[Image.Image]
    seeds: list[int]
    recipes: list[dict[str, Any]]
    flagged: list[bool]
    timings: Timings


class KosmosGPipeline(StableDiffusionMixin, DiffusionPipeline):
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
        self.controlnets = ControlNets([CONTROLNETS])

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        source: str | Path,
        *,
        torch_dtype: torch.dtype | dict[str, torch.dtype] | None = None,
        dtype: torch.dtype | dict[str, torch.dtype] | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **components: Any,
    ) -> "KosmosGPipeline":
        """Open weights, every tensor of which must be there, fit and be finite.

        Args:
            source: A folder in the diffusers layout, as ``kosmosg convert`` writes it, or a
                repository of the Hub (``owner/name``), of which only safetensors are read.
            torch_dtype: Precision; float16 on CUDA and float32 elsewhere by default. A dictionary
                gives components one of their own, and the others that under ``"default"``.
            dtype: Another name of ``torch_dtype``.
            device: CUDA if there is one, by default.
            revision: Branch, tag or commit of the repository.
            cache_dir: Where repositories are kept; the Hub's usual cache by default.
            token: For a repository that is not public.
            local_files_only: Ask nobody; take what is in the cache.
            force_download: Fetch again what is in the cache.
            components: Ready ones, by name, which are taken in place of those in the folder.

        Raises:
            WeightsError: If something is missing, damaged or of another model.
            SettingError: If there is no such device or option.
        """
        names = (*COMPONENTS, *OPTIONAL_COMPONENTS)
        if unknown := sorted(components.keys() - set(names)):
            raise SettingError(
                f"KosmosGPipeline.from_pretrained has no option {', '.join(unknown)}. Components "
                f"that can be given are {', '.join(names)}."
            )
        directory = locate_weights(
            source,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        check_layout(directory, without=components)
        device = choose_device(device)
        default = torch.float16 if device.type == "cuda" else torch.float32
        asked = torch_dtype or dtype or default
        dtypes = asked if isinstance(asked, dict) else {"default": asked}
        pipeline = cls(
            **{
                name: components[name]
                if name in components
                else open_part(name, directory, dtypes.get(name, dtypes.get("default", default)))
                for name in names
            }
        )
        pipeline.register_to_config(_name_or_path=str(source))
        # Weights that are no Stable Diffusion v1.5 may come with ControlNets of their own.
        pipeline.controlnets = ControlNets([directory / CONTROLNETS.name, CONTROLNETS])
        return pipeline if device.type == "cpu" else pipeline.to(device)

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **options: Any,
    ) -> None:
        """Write a weights folder: diffusers layout, safetensors only.

        Args:
            save_directory: The folder.
            safe_serialization: Must be true: pickles are neither written nor read.
            variant: Must be ``None``: a folder holds one precision.
            max_shard_size: How large a file may become, such as ``"5GB"``.
            push_to_hub: Upload the folder afterwards, see ``push_to_hub``.
            options: Of ``push_to_hub``; ``repo_id`` is the folder's name by default.

        Raises:
            SettingError: If something is asked for that is not done here.
        """
        if not safe_serialization or variant is not None:
            raise SettingError(
                f"safe_serialization={safe_serialization!r}, variant={variant!r}: weights are "
                "written as safetensors and without a variant. Leave both out."
            )
        folder = Path(save_directory)
        super().save_pretrained(str(folder), max_shard_size=max_shard_size)
        # Names that stay where they are, in place of the modules that define the classes.
        write_model_index(folder)
        if push_to_hub:
            publish(folder, options.pop("repo_id", folder.name), self, **options)

    def push_to_hub(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, repo_id: str, **options: Any
    ) -> str:
        """Upload to the Hub, with a model card unless the repository has one.

        Args:
            repo_id: ``owner/name``, or a name among those of the token's owner.
            options: private, token, commit_message, create_pr; see ``publishing.publish``.

        Returns:
            The address of the commit.

        Raises:
            WeightsError: If the Hub cannot be reached or refuses it.
        """
        with tempfile.TemporaryDirectory(prefix="kosmosg-") as folder:
            self.save_pretrained(folder)
            return publish(Path(folder), repo_id, self, **options)

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
        if output_type not in ("pil", "np", "pt"):
            raise SettingError(f"output_type is {output_type!r}. Choose one of pil, np, pt.")
        if generator is not None:
            if seed is not None:
                raise SettingError("Both seed and generator are given. Leave one of them out.")
            seed = _seeds_from(generator, prompt, prompt_embeds, num_images_per_prompt)
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
            width=width,
            height=height,
            scheduler=scheduler,
            seed=seed,
            lora=lora,
            control=control,
            init=init,
        )
        output = self.generate(request, check_safety=check_safety, progress=progress)
        if output_type != "pil":
            values = VaeImageProcessor.pil_to_numpy(output.images)
            is_numpy = output_type == "np"
            output["images"] = values if is_numpy else VaeImageProcessor.numpy_to_pt(values)
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def generate(
        self,
        request: GenerationRequest,
        *,
        check_safety: bool = True,
        progress: Progress | None = None,
    ) -> KosmosGOutput:
        """Generate images.

        Args:
            request: What is asked for.
            check_safety: Ask the safety checker, if the weights have one. It only flags; what to
                do with a flagged image is up to the caller.
            progress: Called with steps done and steps in all.

        Raises:
            PromptError: If markers and images do not fit, a prompt is too long, or embeddings are
                not of the decoder's shape.
            SettingError: If a number or name lies outside what is allowed.
            LoRAError: If the LoRA is damaged or for another U-Net.
            ControlError: If a ControlNet is missing or does not fit.
            OutOfMemoryError: If not even one image fits into memory.
        """
        request = self.sized(request)
        decoder = self.decoder_with(request.scheduler, request.num_inference_steps)
        each = request.num_images_per_prompt
        with attached(self.unet, request.lora):
            start = time.perf_counter()
            with reporting_out_of_memory("The prompt and its images do not"):
                condition, told = self._condition(request)
                negative, refused = self._refuse(request, condition)
            synchronise(condition)
            encode_seconds = time.perf_counter() - start
            seeds = choose_seeds(request.seed, len(condition) * each)
            inputs = self._prepare(request, condition, negative, seeds)
            images, timings = sample(decoder, inputs, progress)
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
        self, scheduler: str | SchedulerMixin, steps: int | None = None
    ) -> StableDiffusionPipeline:
        """Pair the decoder's networks with a fresh scheduler; no request leaves one behind.

        Raises:
            SettingError: If the name is unknown, or it cannot take so many steps.
        """
        return make_decoder(
            self.unet, self.vae, make_scheduler(scheduler, self.scheduler.config, steps)
        )

    def _condition(self, request: GenerationRequest) -> tuple[Tensor, list[dict[str, Any]]]:
        """Find the condition of every prompt, and what metadata tell of it."""
        weights = request.image_weights
        if request.prompt_embeds is not None:
            if not (request.prompt is None and request.images is None and weights is None):
                raise PromptError(
                    "prompt_embeds stand in place of prompt, images and image_weights. Give either."
                )
            dim = self.unet.config.cross_attention_dim
            embeds = check_embeds("prompt_embeds", request.prompt_embeds, dim)
            return embeds, [{"prompt_embeds": identify_tensor(row)} for row in embeds]
        if request.prompt is None:
            raise PromptError("Give a prompt, or prompt_embeds in its place.")
        prompts, shown = pair(request.prompt, request.images)
        told: list[dict[str, Any]] = [{"prompt": text} for text in prompts]
        for row, each in zip(told, shown, strict=True):
            row |= {"images": list(map(identify, each))} if each else {}
            row |= {} if weights is None else {"image_weights": list(map(float, weights))}
        return self.encoder.conditions(prompts, shown, weights), told

    def _refuse(
        self, request: GenerationRequest, condition: Tensor
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """Find what guidance leads away from, likewise."""
        embeds = request.negative_prompt_embeds
        if embeds is None:
            texts = pair_negatives(request.negative_prompt, len(condition))
            return self.encoder.negatives(texts), [{"negative_prompt": text} for text in texts]
        if request.negative_prompt is not None:
            raise PromptError("negative_prompt_embeds stand in place of negative_prompt. Give one.")
        rows, _, dim = condition.shape
        embeds = check_embeds("negative_prompt_embeds", embeds, dim, rows)
        if embeds.shape != condition.shape:
            raise PromptError(
                f"negative_prompt_embeds have shape {tuple(embeds.shape)}, the prompt's "
                f"{tuple(condition.shape)}. Give as many tokens."
            )
        return embeds, [{"negative_prompt_embeds": identify_tensor(row)} for row in embeds]

    def _prepare(
        self, request: GenerationRequest, condition: Tensor, negative: Tensor, seeds: list[int]
    ) -> SamplingInputs:
        """Bring everything that decides the images to the same size and number of rows."""
        assert request.width is not None and request.height is not None  # it has been sized
        size, scale = (request.width, request.height), self.vae_scale_factor
        each, control, init = request.num_images_per_prompt, request.control, request.init
        channels, device = self.unet.config.in_channels, self._execution_device
        with reporting_out_of_memory("The noise of all images, or what guides them, does not"):
            return SamplingInputs(
                condition=condition.repeat_interleave(each, dim=0),
                negative=negative.repeat_interleave(each, dim=0),
                noise=draw_noise(seeds, channels, size[1] // scale, size[0] // scale),
                steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                seeds=seeds,
                control=control
                and controls.prepare(control, size, self.controlnets, self.unet, device),
                start=init and init_images.prepare(init, size, self.vae, scale, device),
            )


def identify_tensor(tensor: Tensor) -> str:
    """Name a tensor in metadata, by the digest of its values."""
    values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return f"values-sha256:{hashlib.sha256(values.tobytes()).hexdigest()}"


def _seeds_from(
    generator: torch.Generator | Sequence[torch.Generator],
    prompt: Texts | None,
    embeds: Tensor | None,
    images_per_prompt: int,
) -> list[int]:
    """Draw a seed for each image, so that each can be made again alone."""
    given = prompt if embeds is None else embeds
    prompts = 1 if given is None or isinstance(given, str) else len(given)
    if isinstance(generator, torch.Generator):
        generator = [generator] * (prompts * images_per_prompt)
    return [
        int(torch.randint(MAX_SEED + 1, (), generator=each, device=each.device))
        for each in generator
    ]


def _check_fit(kosmosg: KosmosG, unet: Any) -> None:
    dim, wanted = kosmosg.config.aligner_config.dim, unet.config.cross_attention_dim
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

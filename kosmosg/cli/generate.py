"""``generate`` and ``mix``: images for a prompt, and a strip from one image to another."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from kosmosg.diffusion.settings import (
    CONTROL_SCALE,
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    FEWEST_FRAMES,
    GUIDANCE_END,
    LORA_SCALE,
    MOST_FRAMES,
    PROMPT_STRENGTH,
    ControlType,
    SamplerName,
    refuse_alone,
)
from kosmosg.errors import PromptError, UnsafeImageError
from kosmosg.models.config import Dtype
from kosmosg.utils.checks import check_integer

if TYPE_CHECKING:
    from PIL import Image

    from kosmosg.diffusion.output import KosmosGOutput
    from kosmosg.pipeline import KosmosGPipeline


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What generates, and where.

    Attributes:
        weights: Weights folder or Hub id; else KOSMOSG_WEIGHTS, else weights/kosmos-g.
        device: Such as cpu or cuda:1; else cuda if there is one, else cpu.
        dtype: Precision; else float16 on cuda and float32 elsewhere.
    """

    weights: str | None = None
    device: str | None = None
    dtype: Dtype | None = None

    def open(self) -> "KosmosGPipeline":
        """Open the weights."""
        import torch

        from kosmosg.checkpoints.folder import fetch_weights
        from kosmosg.pipeline import KosmosGPipeline

        return KosmosGPipeline.from_pretrained(
            fetch_weights(self.weights),
            torch_dtype=getattr(torch, self.dtype) if self.dtype else None,
            device=self.device,
        )


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How images come out of noise.

    Attributes:
        guidance_scale: Strength of the guidance; 1 switches it off.
        guidance_end: Share of the steps after which there is no guidance, 0 to 1.
        scheduler: Sampler.
        seed: Of the first image, 0 to 4294967295; random if there is none.
    """

    guidance_scale: float = DEFAULT_GUIDANCE
    guidance_end: float = GUIDANCE_END
    scheduler: SamplerName = DEFAULT_SAMPLER
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """What Stable Diffusion v1.5 is used with.

    Attributes:
        lora: LoRA of the U-Net, .safetensors.
        lora_scale: Strength of the LoRA.
        control_image: Image that fixes the layout through a ControlNet.
        control_type: Which ControlNet reads the control image.
        control_map: The control image is a control map already.
        control_scale: Strength of the ControlNet, 0 to 2.
        init_image: Image to start from instead of noise.
        init_mask: Repaint only the white parts of this mask of the initial image.
        prompt_strength: How far to move from the initial image, 0 to 1.
    """

    lora: Path | None = None
    lora_scale: float = LORA_SCALE
    control_image: Path | None = None
    control_type: ControlType = "canny"
    control_map: bool = False
    control_scale: float = CONTROL_SCALE
    init_image: Path | None = None
    init_mask: Path | None = None
    prompt_strength: float = PROMPT_STRENGTH

    def __post_init__(self) -> None:
        """Refuse options that were meant to act on what is not there."""
        defaults = {field.name: field.default for field in fields(self)}
        for needed, names in (
            ("lora", ["lora_scale"]),
            ("control_image", ["control_type", "control_map", "control_scale"]),
            ("init_image", ["init_mask", "prompt_strength"]),
        ):
            if getattr(self, needed) is None:
                refuse_alone(
                    _option(needed),
                    {_option(name): (getattr(self, name), defaults[name]) for name in names},
                )

    def open(self) -> dict[str, Any]:
        """Open the files, in the words of ``GenerationRequest``."""
        from kosmosg.diffusion.control import Control
        from kosmosg.diffusion.init_image import InitImage
        from kosmosg.diffusion.lora import LoRA

        found: dict[str, Any] = {}
        if self.lora:
            found["lora"] = LoRA(file=self.lora, scale=self.lora_scale, name=str(self.lora))
        if self.control_image:
            found["control"] = Control(
                kind=self.control_type,
                image=_open_image(self.control_image, keep_alpha=True),
                preprocess=not self.control_map,
                scale=self.control_scale,
            )
        if self.init_image:
            found["init"] = InitImage(
                image=_open_image(self.init_image, keep_alpha=True),
                mask=_open_image(self.init_mask, keep_alpha=True) if self.init_mask else None,
                strength=self.prompt_strength,
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Generate images.

    Attributes:
        prompt: Text, with <i> for each input image.
        image: Input image; repeat it, in the order of the markers.
        negative_prompt: What should not appear.
        output: .png, .webp or .jpg; numbered if there are several.
        num_images: Images of the prompt.
        steps: Denoising steps, 1 to 999.
        width: In pixels, a multiple of 8; else as the model was trained.
        height: In pixels, a multiple of 8; else as the model was trained.
        no_safety_checker: Do not ask the safety checker.
    """

    prompt: str
    image: tuple[Path, ...] = ()
    negative_prompt: str = ""
    output: Path = Path("out.png")
    num_images: int = 1
    steps: int = DEFAULT_STEPS
    width: int | None = None
    height: int | None = None
    no_safety_checker: bool = False
    sampling: SamplingOptions
    adapter: AdapterOptions
    model: ModelOptions

    def run(self) -> None:
        """Generate the images and save them."""
        from tqdm import tqdm

        from kosmosg.diffusion.request import GenerationRequest
        from kosmosg.serving.metadata import check_format

        check_format(self.output)
        request = GenerationRequest(
            prompt=self.prompt,
            images=[_open_image(path) for path in self.image],
            negative_prompt=self.negative_prompt,
            num_images_per_prompt=self.num_images,
            num_inference_steps=self.steps,
            guidance_scale=self.sampling.guidance_scale,
            guidance_end=self.sampling.guidance_end,
            width=self.width,
            height=self.height,
            scheduler=self.sampling.scheduler,
            seed=self.sampling.seed,
            **self.adapter.open(),
        )
        pipeline = self.model.open()
        with tqdm(desc="denoise", unit="step") as bar:

            def progress(done: int, total: int) -> None:
                bar.total, bar.n = total, done
                bar.refresh()

            result = pipeline.generate(
                request, check_safety=not self.no_safety_checker, progress=progress
            )
        _save(result, self.output)


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Generate a strip of images from one input image to another.

    Attributes:
        first: Image at the left end.
        second: Image at the right end.
        prompt: Text with one <i>, which both images take turns in.
        frames: Images of the strip, 2 to 64.
        output: .png, .webp or .jpg.
        inference_steps: Denoising steps of each image, 1 to 999.
    """

    RENAMED = {  # noqa: RUF012 - a constant
        "--steps": "--frames says how many images the strip has, --inference-steps how many "
        "denoising steps each takes"
    }

    first: Positional[Path]
    second: Positional[Path]
    prompt: str = "<i>"
    frames: int = 8
    output: Path = Path("mix.png")
    inference_steps: int = DEFAULT_STEPS
    sampling: SamplingOptions
    model: ModelOptions

    def __post_init__(self) -> None:
        check_integer("--frames", self.frames, FEWEST_FRAMES, MOST_FRAMES)
        if self.prompt.count("<i>") != 1:
            raise PromptError(
                "--prompt must have exactly one <i>, which both images take turns in."
            )

    def run(self) -> None:
        """Generate the strip and save it."""
        from kosmosg.diffusion.interpolation import lay_side_by_side
        from kosmosg.serving.metadata import check_format, save_image
        from kosmosg.serving.mixing import mix

        check_format(self.output)
        ends = [_open_image(path) for path in (self.first, self.second)]
        result = mix(
            self.model.open(),
            ends,
            prompt=self.prompt,
            frames=self.frames,
            num_inference_steps=self.inference_steps,
            guidance_scale=self.sampling.guidance_scale,
            guidance_end=self.sampling.guidance_end,
            scheduler=self.sampling.scheduler,
            seed=self.sampling.seed,
        )
        if flagged := sum(result.flagged):
            print(f"blacked out: {flagged} images that the safety checker flagged")
        if flagged == self.frames:
            raise UnsafeImageError
        recipe = {key: value for key, value in result.recipes[0].items() if key != "frame"}
        self.output.parent.mkdir(parents=True, exist_ok=True)
        strip = lay_side_by_side(result.images, result.flagged)
        path = save_image(strip, self.output, quality=90, recipe=recipe)
        print(f"{path} (seed {result.seeds[0]})")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _open_image(path: Path, *, keep_alpha: bool = False) -> "Image.Image":
    from kosmosg.prompts.images import open_image

    return open_image(path, str(path), keep_alpha=keep_alpha)


def _save(result: "KosmosGOutput", output: Path) -> None:
    """Write the images that the safety checker let pass, and say where they are."""
    from kosmosg.serving.metadata import save_image

    if all(result.flagged):
        raise UnsafeImageError
    output.parent.mkdir(parents=True, exist_ok=True)
    for index, (image, seed) in enumerate(zip(result.images, result.seeds, strict=True)):
        if result.flagged[index]:
            print(f"left out: the image with seed {seed}, flagged by the safety checker")
            continue
        name = output.name
        if len(result.images) > 1:
            name = f"{output.stem}-{index}{output.suffix}"
        path = output.with_name(name)
        print(f"{save_image(image, path, quality=90, recipe=result.recipes[index])} (seed {seed})")

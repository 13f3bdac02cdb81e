"""``generate``: draw pictures for a prompt."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmosg.diffusion.settings import (
    CONTROL_SCALE,
    CONTROL_TYPES,
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    LORA_SCALE,
    MAX_SEED,
    PROMPT_STRENGTH,
    SAMPLER_NAMES,
)
from kosmosg.errors import SettingError, UnsafeImageError
from kosmosg.models.config import DTYPES

if TYPE_CHECKING:
    from PIL import Image

    from kosmosg.pipeline import KosmosGOutput


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("generate", help="draw pictures")
    parser.set_defaults(run=run)
    parser.add_argument("--prompt", required=True, help="text, with <i> for each input image")
    parser.add_argument(
        "--image", action="append", default=[], type=Path, help="input image; repeat it in order"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("out.png"),
        metavar="FILE",
        help=".png, .webp or .jpg, numbered if there are several; default: out.png",
    )
    parser.add_argument("--negative-prompt", default="", help="what should not appear")
    parser.add_argument("--num-images", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--steps", type=int, default=DEFAULT_STEPS, metavar="N", help=f"default: {DEFAULT_STEPS}"
    )
    parser.add_argument(
        "--guidance-scale",
        type=float,
        default=DEFAULT_GUIDANCE,
        metavar="X",
        help=f"1 switches guidance off; default: {DEFAULT_GUIDANCE:g}",
    )
    parser.add_argument("--width", type=int, metavar="PIXELS", help="default: as trained")
    parser.add_argument("--height", type=int, metavar="PIXELS", help="default: as trained")
    parser.add_argument(
        "--scheduler",
        default=DEFAULT_SAMPLER,
        choices=SAMPLER_NAMES,
        metavar="NAME",
        help=f"{', '.join(SAMPLER_NAMES)}; default: {DEFAULT_SAMPLER}",
    )
    parser.add_argument("--seed", type=int, metavar="N", help=f"0 to {MAX_SEED}; default: random")
    _add_techniques(parser)
    parser.add_argument(
        "--weights", metavar="DIR", help="default: KOSMOSG_WEIGHTS or weights/kosmos-g"
    )
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="default: float16 on cuda, else float32")
    parser.add_argument(
        "--no-safety-checker", action="store_true", help="do not ask the safety checker"
    )


def _add_techniques(parser: argparse.ArgumentParser) -> None:
    """Add what Stable Diffusion v1.5 is used with."""
    parser.add_argument("--lora", type=Path, metavar="FILE", help="LoRA of the U-Net, .safetensors")
    parser.add_argument(
        "--lora-scale",
        type=float,
        default=LORA_SCALE,
        metavar="X",
        help=f"its strength; default: {LORA_SCALE:g}",
    )
    parser.add_argument(
        "--control-image", type=Path, metavar="FILE", help="fixes the layout through a ControlNet"
    )
    parser.add_argument(
        "--control-type",
        choices=CONTROL_TYPES,
        default=CONTROL_TYPES[0],
        metavar="KIND",
        help=f"{', '.join(CONTROL_TYPES)}; default: {CONTROL_TYPES[0]}",
    )
    parser.add_argument(
        "--control-map", action="store_true", help="the control image is a control map already"
    )
    parser.add_argument(
        "--control-scale",
        type=float,
        default=CONTROL_SCALE,
        metavar="X",
        help=f"0 to 2; default: {CONTROL_SCALE:g}",
    )
    parser.add_argument(
        "--init-image", type=Path, metavar="FILE", help="start from it instead of noise"
    )
    parser.add_argument(
        "--init-mask", type=Path, metavar="FILE", help="repaint only the white parts"
    )
    parser.add_argument(
        "--prompt-strength",
        type=float,
        default=PROMPT_STRENGTH,
        metavar="X",
        help=f"how far to move from the initial image, 0 to 1; default: {PROMPT_STRENGTH:g}",
    )


def _read_techniques(options: argparse.Namespace) -> dict[str, Any]:
    """Open what the techniques need."""
    from kosmosg.diffusion.control import Control
    from kosmosg.diffusion.init_image import InitImage
    from kosmosg.diffusion.lora import LoRA
    from kosmosg.prompts.images import open_image

    def opened(path: Path | None) -> "Image.Image | None":
        return None if path is None else open_image(path, str(path), keep_alpha=True)

    found: dict[str, Any] = {}
    if options.lora:
        found["lora"] = LoRA(file=options.lora, scale=options.lora_scale, name=str(options.lora))
    if control := opened(options.control_image):
        found["control"] = Control(
            kind=options.control_type,
            image=control,
            preprocess=not options.control_map,
            scale=options.control_scale,
        )
    mask = opened(options.init_mask)
    if init := opened(options.init_image):
        found["init"] = InitImage(image=init, mask=mask, strength=options.prompt_strength)
    elif mask:
        raise SettingError("--init-mask needs --init-image, of which it says what may change.")
    return found


def run(options: argparse.Namespace) -> None:
    """Draw pictures and save them."""
    import torch
    from tqdm import tqdm

    from kosmosg.checkpoints.folder import find_weights
    from kosmosg.pipeline import KosmosGPipeline
    from kosmosg.prompts.images import open_image
    from kosmosg.serving.metadata import check_format

    check_format(options.output)
    images = [open_image(path, str(path)) for path in options.image]
    techniques = _read_techniques(options)
    pipeline = KosmosGPipeline.from_pretrained(
        find_weights(options.weights),
        torch_dtype=getattr(torch, options.dtype) if options.dtype else None,
        device=options.device,
    )
    with tqdm(desc="denoise", unit="step") as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        result = pipeline(
            options.prompt,
            images,
            options.negative_prompt,
            num_images_per_prompt=options.num_images,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance_scale,
            width=options.width,
            height=options.height,
            scheduler=options.scheduler,
            seed=options.seed,
            check_safety=not options.no_safety_checker,
            progress=progress,
            **techniques,
        )
    _save(result, options.output)


def _save(result: "KosmosGOutput", output: Path) -> None:
    """Write the pictures that the safety checker let pass, and say where they are."""
    from kosmosg.serving.metadata import save_image

    if all(result.flagged):
        raise UnsafeImageError(
            "The safety checker flagged every image. Try another seed or prompt."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    for index, (image, seed) in enumerate(zip(result.images, result.seeds, strict=True)):
        if result.flagged[index]:
            print(f"left out: the picture with seed {seed}, flagged by the safety checker")
            continue
        name = output.name
        if len(result.images) > 1:
            name = f"{output.stem}-{index}{output.suffix}"
        path = output.with_name(name)
        print(f"{save_image(image, path, quality=90, recipe=result.recipes[index])} (seed {seed})")

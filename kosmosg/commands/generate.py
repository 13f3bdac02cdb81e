"""``generate``: draw pictures for a prompt."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kosmosg.commands import DTYPES
from kosmosg.config import (
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    MAX_SEED,
    SAMPLER_NAMES,
)
from kosmosg.errors import UnsafeImageError

if TYPE_CHECKING:
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
    parser.add_argument(
        "--weights", metavar="DIR", help="default: KOSMOSG_WEIGHTS or weights/kosmos-g"
    )
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="default: float16 on cuda, else float32")
    parser.add_argument(
        "--no-safety-checker", action="store_true", help="do not ask the safety checker"
    )


def run(options: argparse.Namespace) -> None:
    """Draw pictures and save them."""
    import torch
    from tqdm import tqdm

    from kosmosg.images import open_image
    from kosmosg.outputs import check_format
    from kosmosg.pipeline import KosmosGPipeline
    from kosmosg.weights import find_weights

    check_format(options.output)
    images = [open_image(path, str(path)) for path in options.image]
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
        )
    _save(result, options.output)


def _save(result: "KosmosGOutput", output: Path) -> None:
    """Write the pictures that the safety checker let pass, and say where they are."""
    from kosmosg.outputs import save_image

    if all(result.flagged):
        raise UnsafeImageError(
            "The safety checker flagged every picture. Try another seed or prompt."
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

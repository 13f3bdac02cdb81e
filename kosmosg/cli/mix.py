"""``mix``: a strip of pictures from one input image to another."""

import argparse
from pathlib import Path

from kosmosg.diffusion.settings import (
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    MAX_SEED,
    SAMPLER_NAMES,
    choose_seeds,
)
from kosmosg.errors import PromptError, SettingError, UnsafeImageError
from kosmosg.models.config import DTYPES

MOST = 64  # pictures of a strip


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("mix", help="draw a strip from one image to another")
    parser.set_defaults(run=run)
    parser.add_argument("first", metavar="A", type=Path, help="image at the left end")
    parser.add_argument("second", metavar="B", type=Path, help="image at the right end")
    parser.add_argument("--prompt", default="<i>", help="text with one <i>; default: <i>")
    parser.add_argument(
        "--steps", type=int, default=8, metavar="N", help="pictures of the strip; default: 8"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("mix.png"), metavar="FILE", help="default: mix.png"
    )
    parser.add_argument(
        "--inference-steps",
        type=int,
        default=DEFAULT_STEPS,
        metavar="N",
        help=f"denoising steps of each; default: {DEFAULT_STEPS}",
    )
    parser.add_argument(
        "--guidance-scale",
        type=float,
        default=DEFAULT_GUIDANCE,
        metavar="X",
        help=f"default: {DEFAULT_GUIDANCE:g}",
    )
    parser.add_argument(
        "--scheduler",
        default=DEFAULT_SAMPLER,
        choices=SAMPLER_NAMES,
        metavar="NAME",
        help=f"default: {DEFAULT_SAMPLER}",
    )
    parser.add_argument("--seed", type=int, metavar="N", help=f"0 to {MAX_SEED}; default: random")
    parser.add_argument(
        "--weights", metavar="DIR", help="default: KOSMOSG_WEIGHTS or weights/kosmos-g"
    )
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="default: float16 on cuda, else float32")


def run(options: argparse.Namespace) -> None:
    """Draw the strip and save it."""
    import torch

    from kosmosg.checkpoints.folder import find_weights
    from kosmosg.diffusion.interpolation import interpolate, lay_side_by_side
    from kosmosg.pipeline import KosmosGPipeline
    from kosmosg.prompts.images import identify, open_image
    from kosmosg.serving.metadata import check_format, save_image

    check_format(options.output)
    if not 2 <= options.steps <= MOST:
        raise SettingError(f"--steps is {options.steps}; it must be from 2 to {MOST}.")
    if options.prompt.count("<i>") != 1:
        raise PromptError("--prompt must have exactly one <i>, which A and B take turns in.")
    ends = [open_image(path, str(path)) for path in (options.first, options.second)]
    pipeline = KosmosGPipeline.from_pretrained(
        find_weights(options.weights),
        torch_dtype=getattr(torch, options.dtype) if options.dtype else None,
        device=options.device,
    )
    (seed,) = choose_seeds(options.seed, 1)
    conditions, _ = pipeline.encode_prompt([options.prompt] * 2, [[end] for end in ends])
    output = pipeline(
        prompt_embeds=interpolate(conditions[0], conditions[1], options.steps),
        num_inference_steps=options.inference_steps,
        guidance_scale=options.guidance_scale,
        scheduler=options.scheduler,
        seed=[seed] * options.steps,
    )
    flagged = sum(output.flagged)
    if flagged:
        print(f"blacked out: {flagged} images that the safety checker flagged")
    if flagged == options.steps:
        raise UnsafeImageError(
            "The safety checker flagged every image. Try another seed or prompt."
        )
    recipe = output.recipes[0]
    for key in ("prompt_embeds", "num_images_per_prompt"):
        del recipe[key]
    recipe = {"prompt": options.prompt, "images": list(map(identify, ends))} | recipe
    options.output.parent.mkdir(parents=True, exist_ok=True)
    path = save_image(
        lay_side_by_side(output.images, output.flagged),
        options.output,
        quality=90,
        recipe=recipe | {"frames": options.steps},
    )
    print(f"{path} (seed {seed})")

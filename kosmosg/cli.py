"""``python -m kosmosg``: the library on the command line."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kosmosg.config import (
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    FULL_SIZE,
    MAX_SEED,
    SAMPLER_NAMES,
    SD15_REPOSITORY,
)
from kosmosg.errors import KosmosGError, SettingError, UnsafeImageError

DTYPES = ("float16", "bfloat16", "float32")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 after an error that the message explains.
    """
    options = build_parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    # Read by transformers when it is imported: no notes on missing torchvision, no bars of its own.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        options.run(options)
    except KosmosGError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser with one subparser per command."""
    parser = argparse.ArgumentParser(
        prog="python -m kosmosg",
        description="KOSMOS-G: pictures of the subjects in your input images.",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more in the log")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_convert(commands)
    _add_download(commands)
    return parser


def _add_generate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("generate", help="draw pictures")
    parser.set_defaults(run=_generate)
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


def _generate(options: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from kosmosg.images import open_image
    from kosmosg.outputs import check_format, save_image
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
    if all(result.flagged):
        raise UnsafeImageError(
            "The safety checker flagged every picture. Try another seed or prompt."
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for index, (image, seed) in enumerate(zip(result.images, result.seeds, strict=True)):
        if result.flagged[index]:
            print(f"left out: the picture with seed {seed}, flagged by the safety checker")
            continue
        name = options.output.name
        if len(result.images) > 1:
            name = f"{options.output.stem}-{index}{options.output.suffix}"
        path = options.output.with_name(name)
        print(f"{save_image(image, path, quality=90, recipe=result.recipes[index])} (seed {seed})")


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("convert", help="turn the authors' checkpoint into weights")
    parser.set_defaults(run=_convert)
    parser.add_argument(
        "--from-kosmos2",
        action="store_true",
        help="CHECKPOINT is a folder or Hub id of Kosmos-2, from which stage 2 can start",
    )
    parser.add_argument("checkpoint", help=".pt of any stage, or .safetensors")
    parser.add_argument("output", type=Path, help="weights directory to write")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with sentencepiece.bpe.model and dict.txt",
    )
    parser.add_argument(
        "--stable-diffusion",
        default=SD15_REPOSITORY,
        metavar="DIR_OR_ID",
        help=f"for what the checkpoint lacks; default: {SD15_REPOSITORY}",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON with the sizes of another model"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="default: float16")
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out unknown keys that match, such as 'extra.*'",
    )
    parser.add_argument(
        "--no-safety-checker", action="store_true", help="do not take the safety checker"
    )


def _convert(options: argparse.Namespace) -> None:
    import torch

    from kosmosg.convert import convert
    from kosmosg.kosmos2 import convert_kosmos2
    from kosmosg.sizes import read_sizes

    common = {
        "tokenizer": options.tokenizer,
        "stable_diffusion": options.stable_diffusion,
        "sizes": read_sizes(options.config) if options.config else FULL_SIZE,
        "dtype": getattr(torch, options.dtype),
        "safety_checker": not options.no_safety_checker,
    }
    if options.from_kosmos2:
        report = convert_kosmos2(options.checkpoint, options.output, **common)
    else:
        report = convert(options.checkpoint, options.output, ignore=options.ignore, **common)
    stage = {"lm": "1 (language model)", "align": "2 (aligned)", "instruct": "3 (final)"}
    print(f"{options.output}: a checkpoint of stage {stage[report.stage]}")
    for part, count in report.converted.items():
        print(f"  {part}: {count} tensors")
    for reason, count in report.left_out.items():
        print(f"  left out: {count} ({reason})")
    for note in report.notes:
        print(f"  note: {note}")


def _add_download(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("download", help="fetch what weights/manifest.toml lists")
    parser.set_defaults(run=_download)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="default: all for inference")
    parser.add_argument(
        "--manifest",
        type=Path,
        default=Path("weights/manifest.toml"),
        metavar="FILE",
        help="default: weights/manifest.toml",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path("weights"),
        metavar="DIR",
        help="where to; default: weights",
    )
    parser.add_argument("--mirror", metavar="URL", help="in place of https://huggingface.co")
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="another place for one file, such as kosmos-g=https://…/kosmosg.pt",
    )


def _download(options: argparse.Namespace) -> None:
    from kosmosg.download import download, read_manifest

    urls = {}
    for entry in options.url:
        name, equals, url = entry.partition("=")
        if not equals:
            raise SettingError(f"--url {entry}: write NAME=URL, with a name of the manifest.")
        urls[name] = url
    files = download(
        read_manifest(options.manifest),
        options.weights,
        groups=options.groups or None,
        mirror=options.mirror,
        progress=sys.stderr.isatty(),
        urls=urls,
    )
    for file in files:
        print(file)
    if not options.groups:
        print(
            f"Next: python -m kosmosg convert {options.weights}/checkpoints/kosmos-g.pt "
            f"{options.weights}/kosmos-g --tokenizer {options.weights}/tokenizer "
            f"--stable-diffusion {options.weights}/stable-diffusion-v1-5"
        )

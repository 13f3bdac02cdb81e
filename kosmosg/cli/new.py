"""``new``: a weights directory to train from nothing."""

import argparse
from pathlib import Path

from kosmosg.models.config import DTYPES, SD15_REPOSITORY


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("new", help="write untrained weights, to train from nothing")
    parser.set_defaults(run=run)
    parser.add_argument("output", type=Path, help="weights directory to write")
    parser.add_argument(
        "--tokenizer", type=Path, required=True, metavar="DIR", help="KOSMOS-G's tokenizer"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="JSON with an object 'kosmosg' of the sizes; default: those of the released model",
    )
    parser.add_argument(
        "--stable-diffusion",
        default=SD15_REPOSITORY,
        metavar="DIR_OR_ID",
        help=f"where U-Net and VAE are; default: {SD15_REPOSITORY}",
    )
    parser.add_argument(
        "--clip", type=Path, metavar="DIR", help="CLIP whose image tower is taken over"
    )
    parser.add_argument(
        "--text-encoder", action="store_true", help="take Stable Diffusion's text encoder along"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="precision to write; default: float32"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")


def run(options: argparse.Namespace) -> None:
    """Write the directory."""
    import torch

    from kosmosg.checkpoints.untrained import write_start
    from kosmosg.models.config import FULL_SIZE
    from kosmosg.models.sizes import read_part

    write_start(
        options.output,
        sizes=read_part(options.config, "kosmosg") if options.config else FULL_SIZE,
        tokenizer=options.tokenizer,
        stable_diffusion=options.stable_diffusion,
        clip=options.clip,
        text_encoder=options.text_encoder,
        dtype=getattr(torch, options.dtype),
        seed=options.seed,
    )
    print(options.output)

"""``convert``: turn a checkpoint into a weights directory."""

import argparse
from pathlib import Path

from kosmosg.models.config import DTYPES, FULL_SIZE, SD15_REPOSITORY


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("convert", help="turn the authors' checkpoint into weights")
    parser.set_defaults(run=run)
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


def run(options: argparse.Namespace) -> None:
    """Convert a checkpoint and report what became of it."""
    import torch

    from kosmosg.checkpoints.convert import convert
    from kosmosg.checkpoints.kosmos2 import convert_kosmos2
    from kosmosg.models.sizes import read_sizes

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

"""``train``: the three stages."""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

from kosmosg.cli.train_options import add_data, add_loop, add_number, data_options, loop_options
from kosmosg.data.options import DROP_CAPTION, DROP_TEXT, KEEP_BACKGROUND
from kosmosg.errors import TrainingError
from kosmosg.models.config import FULL_SIZE


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("train", help="train a stage")
    parser.set_defaults(run=run_stage)
    stages = parser.add_subparsers(title="stages", required=True, metavar="STAGE")
    _add_lm(stages)
    _add_align(stages)
    _add_instruct(stages)


def run_stage(options: argparse.Namespace) -> None:
    """Train a stage, and say where the result is."""
    _check_extra()
    result = options.train(options)
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        print(result)


def _check_extra() -> None:
    """Check that what only training needs is installed.

    Raises:
        TrainingError: Naming what to install.
    """
    missing = [name for name in ("tensorboard", "webdataset") if find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"Training needs {' and '.join(missing)}. Install what belongs to it, in the folder of "
            "the project: pip install -e '.[train]'."
        )


def _add_lm(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("lm", help="stage 1: language model, on texts with pictures")
    parser.set_defaults(train=_train_lm)
    _add_start(parser)
    longest = FULL_SIZE["decoder"]["max_target_positions"]
    add_number(parser, "tokens", int, longest, "length of a packed sequence")
    parser.add_argument(
        "--lanes",
        type=int,
        metavar="N",
        help="lines that documents are packed in; default: the number of processes",
    )
    add_data(parser)
    add_loop(parser)


def _train_lm(options: argparse.Namespace) -> Path:
    from kosmosg.training.setup import train_lm
    from kosmosg.training.starting_weights import StartingWeights

    start = StartingWeights(directory=options.weights)
    data, loop = data_options(options), loop_options(options)
    return train_lm(start, data, loop, tokens=options.tokens, lanes=options.lanes)


def _add_align(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("align", help="stage 2: AlignerNet, on captions")
    parser.set_defaults(train=_train_align)
    _add_start(parser)
    parser.add_argument(
        "--stable-diffusion",
        metavar="DIR_OR_ID",
        help="where CLIP's text encoder is; default: the weights directory",
    )
    parser.add_argument(
        "--skip-padding", action="store_true", help="measure no padded positions, as in the paper"
    )
    parser.add_argument(
        "--no-frozen-dropout",
        action="store_true",
        help="switch the frozen language model's dropout off, as in the paper",
    )
    add_data(parser)
    add_loop(parser)


def _train_align(options: argparse.Namespace) -> Path:
    from kosmosg.training.setup import train_align
    from kosmosg.training.starting_weights import StartingWeights

    return train_align(
        StartingWeights(directory=options.weights),
        data_options(options),
        loop_options(options),
        stable_diffusion=options.stable_diffusion,
        count_padding=not options.skip_padding,
        frozen_dropout=not options.no_frozen_dropout,
    )


def _add_instruct(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("instruct", help="stage 3: everything, through the decoder")
    parser.set_defaults(train=_train_instruct)
    _add_start(parser)
    for name, published, meaning in (
        ("keep_background", KEEP_BACKGROUND, "that an entity's picture keeps its background"),
        ("drop_text", DROP_TEXT, "that the words of a sample's entities are left out"),
        ("drop_caption", DROP_CAPTION, "that an edit's caption is left out"),
    ):
        add_number(parser, name, float, published, f"probability {meaning}")
    parser.add_argument("--aligner-only", action="store_true", help="train AlignerNet alone")
    add_data(parser)
    add_loop(parser)


def _train_instruct(options: argparse.Namespace) -> Path:
    from kosmosg.data.entities import EntityOptions
    from kosmosg.training.setup import train_instruct
    from kosmosg.training.starting_weights import StartingWeights

    return train_instruct(
        StartingWeights(directory=options.weights),
        data_options(options),
        loop_options(options),
        entities=EntityOptions(
            keep_background=options.keep_background, drop_text=options.drop_text
        ),
        drop_caption=options.drop_caption,
        aligner_only=options.aligner_only,
    )


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="DIR",
        help="weights directory to begin with (from convert, new, or another stage)",
    )

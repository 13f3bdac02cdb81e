"""``train``: the three stages, and what a model from nothing needs before them."""

import argparse
import os
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmosg.config import FULL_SIZE
from kosmosg.errors import TrainingError

if TYPE_CHECKING:
    from kosmosg.training.data import DataOptions
    from kosmosg.training.options import LoopOptions

# Where a stage finds its sizes in the file that --config names.
CONFIG_PART = {"clip": "clip", "vae": "vae", "decoder": "unet"}
STAGES = "KOSMOS-G: lm, align, instruct. Before a model from nothing: clip, vae, decoder, probe."


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("train", help="train a stage", description=STAGES)
    stages = parser.add_subparsers(title="stages", required=True, metavar="STAGE")
    _add_lm(stages)
    _add_align(stages)
    _add_instruct(stages)
    _add_scaffolding(stages)


def _add_lm(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("lm", help="stage 1: language model, on texts with pictures")
    parser.set_defaults(run=_run, train=_train_lm)
    _add_start(parser)
    parser.add_argument(
        "--tokens",
        type=int,
        default=FULL_SIZE["decoder"]["max_target_positions"],
        metavar="N",
        help="length of a packed sequence; default: 2048",
    )
    parser.add_argument(
        "--lanes",
        type=int,
        metavar="N",
        help="lines that documents are packed in; default: the number of processes",
    )
    _add_loop(parser)


def _add_align(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("align", help="stage 2: AlignerNet, on captions")
    parser.set_defaults(run=_run, train=_train_align)
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
    _add_loop(parser)


def _add_instruct(stages: argparse._SubParsersAction) -> None:
    parser = stages.add_parser("instruct", help="stage 3: everything, through the decoder")
    parser.set_defaults(run=_run, train=_train_instruct)
    _add_start(parser)
    for name, meaning in (
        ("keep-background", "that an entity's picture keeps its background"),
        ("drop-text", "that the words of a sample's entities are left out"),
        ("drop-caption", "that an edit's caption is left out"),
    ):
        parser.add_argument(
            f"--{name}",
            type=float,
            default=0.5,
            metavar="P",
            help=f"probability {meaning}; default: 0.5",
        )
    parser.add_argument("--aligner-only", action="store_true", help="train AlignerNet alone")
    _add_loop(parser)


def _add_scaffolding(stages: argparse._SubParsersAction) -> None:
    for name, meaning in (
        ("clip", "CLIP, on captioned pictures"),
        ("vae", "the decoder's VAE, on pictures"),
        ("decoder", "the decoder's U-Net, on captioned pictures"),
        ("probe", "the classifier that scores the miniature's pictures"),
    ):
        parser = stages.add_parser(name, help=meaning)
        parser.set_defaults(run=_run, train=_train_scaffolding, stage=name)
        if name != "probe":
            parser.add_argument(
                "--config", type=Path, required=True, metavar="FILE", help="JSON with the sizes"
            )
        if name == "clip":
            parser.add_argument(
                "--tokenizer", type=Path, required=True, metavar="DIR", help="CLIP's tokenizer"
            )
            parser.add_argument(
                "--clip", type=Path, metavar="DIR", help="result of train clip to begin with"
            )
        if name == "decoder":
            parser.add_argument(
                "--clip", type=Path, required=True, metavar="DIR", help="result of train clip"
            )
            parser.add_argument(
                "--vae", type=Path, required=True, metavar="DIR", help="result of train vae"
            )
            parser.add_argument(
                "--snr-gamma",
                type=float,
                metavar="X",
                help="let timesteps with a higher signal-to-noise ratio count less; 5 is usual",
            )
        if name == "vae":
            parser.add_argument(
                "--vae",
                type=Path,
                metavar="DIR",
                help="result of train vae whose decoding half alone to train further",
            )
            parser.add_argument(
                "--clip", type=Path, metavar="DIR", help="result of train clip, to compare with"
            )
        _add_loop(parser, data=name != "probe")


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="DIR",
        help="weights directory to begin with (from convert, new, or another stage)",
    )


def _add_loop(parser: argparse.ArgumentParser, data: bool = True) -> None:
    """Add what all stages have in common; names and defaults are those of ``LoopOptions``."""
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the run")
    if data:
        add(
            "--data",
            action="append",
            required=True,
            metavar="[SET=]DIR[:WEIGHT]",
            help="folder of shards, or of the authors' layout with SET captions, instructpix2pix "
            "or openimages before it; repeat it to mix",
        )
        add("--min-side", type=int, default=384, metavar="PIXELS", help="of a captioned picture")
        add("--bad-share", type=float, default=0.2, metavar="P", help="of bad samples; then stop")
        add("--threads", type=int, default=2, metavar="N", help="that read ahead; default: 2")
    add("--steps", type=int, required=True, metavar="N", help="updates in all")
    add("--batch-size", type=int, required=True, metavar="N", help="over all processes")
    add("--learning-rate", type=float, default=1e-3, metavar="X", help="peak; default: 1e-3")
    add("--warmup-steps", type=int, default=375, metavar="N", help="default: 375")
    add("--micro-batch-size", type=int, metavar="N", help="samples in memory at once, per process")
    add("--weight-decay", type=float, default=0.01, metavar="X", help="default: 0.01")
    add("--betas", type=float, nargs=2, default=(0.9, 0.98), metavar="X", help="default: 0.9 0.98")
    add("--epsilon", type=float, default=1e-6, metavar="X", help="Adam's; default: 1e-6")
    add("--clip-norm", type=float, default=2.0, metavar="X", help="of the gradient; default: 2")
    add("--ema-decay", type=float, metavar="X", help="average the weights; default: no")
    add("--precision", choices=("no", "bf16", "fp16"), default="no", help="mixed precision")
    add("--gradient-checkpointing", action="store_true", help="less memory, more time")
    add("--save-dtype", choices=("float32", "float16"), default="float32", help="of the result")
    add("--seed", type=int, default=0, metavar="N", help="default: 0")
    add("--save-every", type=int, default=2000, metavar="N", help="updates; default: 2000")
    add(
        "--sample-every",
        type=int,
        default=0,
        metavar="N",
        help="updates, of vae and instruct; default: none",
    )
    add("--log-every", type=int, default=50, metavar="N", help="updates; default: 50")
    add("--keep", type=int, default=2, metavar="N", help="checkpoints; default: 2")


def _run(options: argparse.Namespace) -> None:
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
            f"Training needs {' and '.join(missing)}. Install what belongs to it: pip install "
            "'kosmosg[train]'."
        )


def _loop_options(options: argparse.Namespace) -> "LoopOptions":
    from kosmosg.training.options import LoopOptions

    values = {field.name: getattr(options, field.name) for field in fields(LoopOptions)}
    return LoopOptions(**{**values, "betas": tuple(options.betas)})


def _data_options(options: argparse.Namespace) -> "DataOptions":
    from kosmosg.training.data import DataOptions, parse_sets

    return DataOptions(
        sets=parse_sets(options.data),
        seed=options.seed,
        min_side=options.min_side,
        bad_share=options.bad_share,
        threads=options.threads,
    )


def _train_lm(options: argparse.Namespace) -> Path:
    from kosmosg.training.runs import Start, train_lm

    start = Start(directory=options.weights)
    data, loop = _data_options(options), _loop_options(options)
    return train_lm(start, data, loop, tokens=options.tokens, lanes=options.lanes)


def _train_align(options: argparse.Namespace) -> Path:
    from kosmosg.training.runs import Start, train_align

    return train_align(
        Start(directory=options.weights),
        _data_options(options),
        _loop_options(options),
        stable_diffusion=options.stable_diffusion,
        count_padding=not options.skip_padding,
        frozen_dropout=not options.no_frozen_dropout,
    )


def _train_instruct(options: argparse.Namespace) -> Path:
    from kosmosg.data.entities import EntityOptions
    from kosmosg.training.runs import Start, train_instruct

    return train_instruct(
        Start(directory=options.weights),
        _data_options(options),
        _loop_options(options),
        entities=EntityOptions(
            keep_background=options.keep_background, drop_text=options.drop_text
        ),
        drop_caption=options.drop_caption,
        aligner_only=options.aligner_only,
    )


def _train_scaffolding(options: argparse.Namespace) -> Path:
    from kosmosg.sizes import read_part
    from kosmosg.training import scaffolding

    loop = _loop_options(options)
    if options.stage == "probe":
        return scaffolding.train_probe(loop)
    data = _data_options(options)
    config: dict[str, Any] = read_part(options.config, CONFIG_PART[options.stage])
    if options.stage == "clip":
        return scaffolding.train_clip(config, options.tokenizer, data, loop, clip=options.clip)
    if options.stage == "vae":
        return scaffolding.train_vae(config, data, loop, vae=options.vae, clip=options.clip)
    return scaffolding.train_decoder(
        config, options.clip, options.vae, data, loop, snr_gamma=options.snr_gamma
    )

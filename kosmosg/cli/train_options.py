"""What the stages of ``train`` have in common on the command line."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from kosmosg.training.options import (
    BAD_SHARE,
    MIN_SIDE,
    THREADS,
    LoopOptions,
    Precision,
    SaveDtype,
)

if TYPE_CHECKING:
    from kosmosg.training.data import DataOptions

LEARNING_RATE = 1e-3  # the authors'
# Numbers of ``LoopOptions`` that have a default: type, and what they are.
NUMBERS: dict[str, tuple[type, str]] = {
    "warmup_steps": (int, "updates until the peak"),
    "micro_batch_size": (int, "samples in memory at once, if not all of a process's"),
    "weight_decay": (float, "of AdamW"),
    "epsilon": (float, "of AdamW"),
    "clip_norm": (float, "of the gradient"),
    "ema_decay": (float, "average the weights"),
    "seed": (int, "of order, noise and dropout"),
    "save_every": (int, "updates between two checkpoints"),
    "sample_every": (int, "updates between two sheets, of vae and instruct"),
    "log_every": (int, "updates between two entries of the log"),
    "keep": (int, "checkpoints that stay"),
}


def add_data(parser: argparse.ArgumentParser, threads: bool = True) -> None:
    """Add what ``data_options`` reads."""
    add = parser.add_argument
    add(
        "--data",
        action="append",
        required=True,
        metavar="[SET=]DIR[:WEIGHT]",
        help="folder of shards, or of the authors' layout with SET captions, instructpix2pix "
        "or openimages before it; repeat it to mix",
    )
    add_number(parser, "min_side", int, MIN_SIDE, "shortest side of a captioned picture")
    add_number(parser, "bad_share", float, BAD_SHARE, "share of bad samples that stops the run")
    if threads:
        add_number(parser, "threads", int, THREADS, "threads that read ahead")


def add_loop(parser: argparse.ArgumentParser) -> None:
    """Add what ``loop_options`` reads; names and defaults are those of ``LoopOptions``."""
    add = parser.add_argument
    defaults: dict[str, Any] = {field.name: field.default for field in fields(LoopOptions)}
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the run")
    add("--steps", type=int, required=True, metavar="N", help="updates in all")
    add("--batch-size", type=int, required=True, metavar="N", help="over all processes")
    add_number(parser, "learning_rate", float, LEARNING_RATE, "at its peak")
    betas = defaults["betas"]
    shown = " ".join(map(str, betas))
    add("--betas", type=float, nargs=2, default=betas, metavar="X", help=f"default: {shown}")
    for name, (kind, meaning) in NUMBERS.items():
        add_number(parser, name, kind, defaults[name], meaning)
    for name, kind, meaning in (
        ("precision", Precision, "mixed precision"),
        ("save_dtype", SaveDtype, "precision of the result"),
    ):
        default = defaults[name]
        help_text = f"{meaning}; default: {default}"
        add(_option(name), choices=get_args(kind), default=default, help=help_text)
    add("--gradient-checkpointing", action="store_true", help="less memory, more time")


def add_number(
    parser: argparse.ArgumentParser, name: str, kind: type, default: Any, meaning: str
) -> None:
    """Add a number with its default."""
    shown = f"{default:g}" if default else "none" if default is None else "0"
    parser.add_argument(
        _option(name),
        type=kind,
        default=default,
        metavar="N" if kind is int else "X",
        help=f"{meaning}; default: {shown}",
    )


def loop_options(options: argparse.Namespace) -> LoopOptions:
    """Read what the loop is told."""
    values = {field.name: getattr(options, field.name) for field in fields(LoopOptions)}
    return LoopOptions(**{**values, "betas": tuple(options.betas)})


def data_options(options: argparse.Namespace) -> "DataOptions":
    """Read what is said of the data."""
    from kosmosg.training.data import DataOptions, parse_sets

    return DataOptions(
        sets=parse_sets(options.data),
        seed=options.seed,
        min_side=options.min_side,
        bad_share=options.bad_share,
        threads=getattr(options, "threads", THREADS),
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"

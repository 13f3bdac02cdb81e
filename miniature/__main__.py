"""``python -m miniature``."""

import argparse
import sys
from collections.abc import Sequence

from kosmosg.cli.main import make_parser, run_command
from kosmosg.cli.train import run_stage
from miniature.cli import data, evaluate, train, train_adapters

DESCRIPTION = "A small KOSMOS-G in a drawn world: its data, what it takes from others, its tables."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of ``python -m miniature``."""
    return run_command(build_parser(), arguments)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser with one subparser per command."""
    add_parsers = [data.add_parsers, _add_train, evaluate.add_parser]
    return make_parser("miniature", DESCRIPTION, add_parsers)


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("train", help="train what KOSMOS-G takes from others, or a probe")
    parser.set_defaults(run=run_stage)
    stages = parser.add_subparsers(title="stages", required=True, metavar="STAGE")
    train.add_parsers(stages)
    train_adapters.add_parsers(stages)


if __name__ == "__main__":
    sys.exit(main())

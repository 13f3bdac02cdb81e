"""``python -m kosmosg``: the library on the command line."""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper

from kosmosg.cli import convert, curate, download, evaluate, generate, mix, new, train
from kosmosg.errors import KosmosGError

# In the order of --help.
COMMANDS = (generate, mix, convert, download, new, train, curate, evaluate)

DESCRIPTION = "KOSMOS-G: pictures of the subjects in your input images."

# Adds a command to the parser: its options, and ``run``, which takes them.
AddParser = Callable[[argparse._SubParsersAction], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of ``python -m kosmosg``; see ``run_command``."""
    return run_command(build_parser(), arguments)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser with one subparser per command."""
    return make_parser("kosmosg", DESCRIPTION, [command.add_parser for command in COMMANDS])


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 after an error that the message explains.
    """
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    # Read by transformers when it is imported: no notes on missing torchvision, no bars of its own.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a table has dashes that not every terminal has
    try:
        options.run(options)
    except KosmosGError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def make_parser(
    package: str, description: str, add_parsers: Sequence[AddParser]
) -> argparse.ArgumentParser:
    """Build the parser of a package with one subparser per command."""
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more in the log")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add_parser in add_parsers:
        add_parser(commands)
    return parser

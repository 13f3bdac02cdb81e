"""``python -m kosmosg``: the library on the command line."""

import logging
import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Annotated

from tyro.conf import CascadeSubcommandArgs, arg

from kosmosg.cli.convert import Convert, Download, New
from kosmosg.cli.curate import Curate
from kosmosg.cli.demo import Demo
from kosmosg.cli.estimate import Estimate
from kosmosg.cli.evaluate import Evaluate
from kosmosg.cli.generate import Generate, Mix
from kosmosg.cli.parsing import UsageError, parse
from kosmosg.cli.train import Train
from kosmosg.cli.upload import Upload
from kosmosg.errors import KosmosGError


@dataclass(frozen=True, kw_only=True)
class Program:
    """What every package's command line takes.

    Attributes:
        verbose: Say more in the log.
    """

    verbose: Annotated[CascadeSubcommandArgs[bool], arg(aliases=["-v"])] = False

    def run(self) -> None:
        """Do what is asked."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class KosmosGProgram(Program):
    """KOSMOS-G: images of the subjects in your input images."""

    command: (
        Generate
        | Mix
        | Demo
        | Convert
        | Download
        | New
        | Train
        | Estimate
        | Curate
        | Evaluate
        | Upload
    )

    def run(self) -> None:
        """Run the command."""
        self.command.run()


def main(words: Sequence[str] | None = None) -> int:
    """Run one command of ``python -m kosmosg``; see ``run_program``."""
    return run_program(KosmosGProgram, "kosmosg", words)


def run_program(kind: type[Program], package: str, words: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        kind: The commands.
        package: What the user has called.
        words: What stands behind it; by default what this process was given.

    Returns:
        0; 1 after an error that the message explains; 2 if the command line cannot be read; what a
        shell says of programs that are interrupted or whose reader is gone.
    """
    # Read by transformers when it is imported: no notes on missing torchvision, no bars of its own.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a table has dashes that not every terminal has
    try:
        try:
            program = parse(kind, package, sys.argv[1:] if words is None else words)
            logging.basicConfig(
                level=logging.INFO if program.verbose else logging.WARNING,
                format="%(levelname)s %(name)s: %(message)s",
            )
            program.run()
        finally:
            sys.stdout.flush()  # else what cannot be written is noticed when nobody can tell
    except KosmosGError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 128 + signal.SIGPIPE
        place = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error).partition("\n")[0] or type(error).__name__
        print(f"error: {place}{reason.removesuffix('.')}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _reader_is_gone() -> bool:
    """Tell whether nobody reads what is printed, as after ``| head``; then print nowhere."""
    with suppress(OSError):  # what is no file has no reader either
        output, poll = sys.stdout.fileno(), select.poll()
        poll.register(output, 0)
        if poll.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)
            return True
    return False

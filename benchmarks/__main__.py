"""``python -m benchmarks``: measure, and write the table."""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import SUITES
from kosmosg.diffusion.settings import DEFAULT_STEPS
from kosmosg.errors import KosmosGError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites that were asked for.

    Returns:
        0, or 1 after an error that the message explains.
    """
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    # Read by transformers when it is imported: no notes on missing torchvision, no bars of its own.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        run(options)
    except KosmosGError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What this project costs, as ratios."
    )
    parser.add_argument("--size", choices=("small", "full"), default="full", help="default: full")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SUITES,
        default=SUITES,
        metavar="NAME",
        help=f"some of: {', '.join(SUITES)}",
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help=f"denoising steps to run, 3 to {DEFAULT_STEPS}; the rest is computed; default: 6 at "
        f"full size on a CPU, else {DEFAULT_STEPS}",
    )
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of the processor; default: torch's"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="default: random ones, made when missing"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("outputs/benchmark"),
        metavar="DIR",
        help="for random weights and trials; default: outputs/benchmark",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the table, with .json beside it; default: SIZE.md in --folder",
    )
    parser.add_argument(
        "--everything", action="store_true", help="also what a CPU is not expected to do well"
    )
    return parser


def run(options: argparse.Namespace) -> None:
    """Measure and write after every suite, so that an interrupted run leaves what it has."""
    from benchmarks.session import measure, open_workbench

    output = options.output or options.folder / f"{options.size}.md"
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="trials-") as trials:
        bench = open_workbench(options, Path(trials))
        measure(bench, options.only, output)
    print(output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())

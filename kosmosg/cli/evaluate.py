"""``evaluate``: measure what a model draws."""

import argparse

from kosmosg.cli import evaluate_paper


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("evaluate", help="measure what trained weights draw")
    evaluations = parser.add_subparsers(title="evaluations", required=True, metavar="EVALUATION")
    evaluate_paper.add_parsers(evaluations)

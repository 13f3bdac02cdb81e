"""``download``: fetch the files that the manifest lists."""

import argparse
import sys
from pathlib import Path

from kosmosg.diffusion.settings import CONTROL_TYPES
from kosmosg.errors import SettingError

CONTROLNET = "controlnet"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("download", help="fetch weights, as a manifest lists them")
    parser.set_defaults(run=run)
    parser.add_argument(
        "groups",
        nargs="*",
        metavar="GROUP",
        help="default: all for inference; 'controlnet' is followed by kinds, such as canny depth",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        metavar="FILE",
        help="default: the package's own",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path("weights"),
        metavar="DIR",
        help="where to; default: weights",
    )
    parser.add_argument("--mirror", metavar="URL", help="in place of https://huggingface.co")
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="another place for one file, such as kosmos-g=https://…/kosmosg.pt",
    )


def run(options: argparse.Namespace) -> None:
    """Fetch files and name the next step."""
    from kosmosg.checkpoints.download import download
    from kosmosg.checkpoints.manifest import read_manifest

    urls = {}
    for entry in options.url:
        name, equals, url = entry.partition("=")
        if not equals:
            raise SettingError(f"--url {entry}: write NAME=URL, with a name of the manifest.")
        urls[name] = url
    files = download(
        read_manifest(options.manifest),
        options.weights,
        groups=_join_kinds(options.groups) or None,
        mirror=options.mirror,
        progress=sys.stderr.isatty(),
        urls=urls,
    )
    for file in files:
        print(file)
    if not options.groups:
        print(
            f"Next: python -m kosmosg convert {options.weights}/checkpoints/kosmos-g.pt "
            f"{options.weights}/kosmos-g --tokenizer {options.weights}/tokenizer "
            f"--stable-diffusion {options.weights}/stable-diffusion-v1-5"
        )


def _join_kinds(words: list[str]) -> list[str]:
    """Read ``controlnet canny depth tokenizer`` as two groups of ControlNets and another one."""
    groups: list[str] = []
    kinds = False
    for word in words:
        kinds = word == CONTROLNET or (kinds and word in CONTROL_TYPES)
        if word != CONTROLNET:
            groups.append(f"{CONTROLNET} {word}" if kinds else word)
    if (words and not groups) or words[-1:] == [CONTROLNET]:
        raise SettingError(f"Name the kinds after {CONTROLNET}: {', '.join(CONTROL_TYPES)}.")
    return groups

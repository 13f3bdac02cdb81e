"""What a command line comes to, without running it."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from kosmosg.cli.main import KosmosGProgram
from kosmosg.cli.parsing import parse
from miniature.__main__ import MiniatureProgram

PROGRAMS = {"kosmosg": KosmosGProgram, "miniature": MiniatureProgram}


def read_options(words: Sequence[object], package: str = "kosmosg") -> dict[str, Any]:
    """All options of a command by name, with those of the dataclasses in it."""
    return flatten(parse(PROGRAMS[package], package, [str(word) for word in words]))


def flatten(options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        found |= flatten(value) if is_dataclass(value) else {field.name: value}
    return found

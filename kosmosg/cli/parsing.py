"""Command lines, read by tyro into dataclasses.

A command is a dataclass: its fields are the options, their docstrings the help, and ``run`` is what
it does. What cannot be read is told in one line that names the option, the value and the remedy.
"""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro import _errors as events  # not public: requirements.txt pins the version

from kosmosg.errors import KosmosGError

T = TypeVar("T")

CONFIG = (
    tyro.conf.OmitSubcommandPrefixes,  # `train lm`, not `train stage:lm`
    tyro.conf.OmitArgPrefixes,  # --device, not --model.device
    tyro.conf.FlagCreatePairsOff,  # no --no-control-map beside --control-map
    tyro.conf.UseAppendAction,  # lists by repetition: --image a --image b
    tyro.conf.DisallowNone,  # what is not given is left out
    tyro.conf.PositionalMetavarFromFieldName,
)


class UsageError(KosmosGError):
    """Words of a command line that cannot be read.

    Attributes:
        incomplete: Whether nothing is wrong with the words that are there.
    """

    def __init__(self, message: str, *, incomplete: bool = False):
        super().__init__(message)
        self.incomplete = incomplete


def parse(kind: type[T], package: str, words: Sequence[str]) -> T:
    """Read the words behind ``python -m PACKAGE``.

    Args:
        kind: Dataclass with a field that is a union of commands.
        package: What the user has called.
        words: What stands behind it.

    Raises:
        UsageError: If they cannot be read.
        KosmosGError: If an option's value is refused.
        SystemExit: After ``--help``.
    """

    def explain(event: events.ParseErrorEvent) -> None:
        _explain(event, kind, package, words)

    with events.on_parse_error(explain):
        return tyro.cli(kind, prog=f"python -m {package}", args=words, config=CONFIG)


def _explain(event: events.ParseErrorEvent, kind: type, package: str, words: Sequence[str]) -> None:
    """Raise our error for what tyro is about to reject."""
    names, command = find_command(kind, words)
    program = " ".join([package, *names])
    manual = f"see python -m {program} --help"
    # A wrong option is often the reason why another one, or a value, is missing.
    known = {*list_options(command), *list_options(kind), "--help"}
    strangers = [word for word in words if word[:2] == "--" and _option(word) not in known]
    if strangers and not isinstance(event, events.InvalidChoice | events.InstantiationFailure):
        _refuse_word(strangers[0], names, command, program)
    if isinstance(event, events.UnrecognizedArgs):
        _refuse_word(event.tokens[0], names, command, program)
    if isinstance(event, events.MissingArgs):
        if event.unrecognized_tokens:
            _refuse_word(event.unrecognized_tokens[0], names, command, program)
        missing = ", ".join(_name(context.arg) for context in event.missing_arguments)
        raise UsageError(f"{program} needs {missing}; {manual}.", incomplete=True)
    if isinstance(event, events.MissingSubcommand):
        choices = ", ".join(event.subcommand_spec.parser_from_name)
        raise UsageError(f"{program} needs a command: {choices}.", incomplete=True)
    if isinstance(event, events.BadValue):
        name, count = _name(event.argument), event.argument.lowered.nargs
        wanted = "a value" if count == 1 else f"{count} values"
        raise UsageError(
            f"{name} needs {wanted}; one that begins with - is written {name}=VALUE.",
            incomplete=True,
        )
    if isinstance(event, events.InvalidChoice):
        choices = ", ".join(event.choices)
        raise UsageError(f"{_name(event.argument)} is {event.value!r}; choose one of {choices}.")
    if isinstance(event, events.InstantiationFailure):
        _refuse_value(event, words)


def _refuse_word(word: str, names: Sequence[str], command: type, program: str) -> NoReturn:
    """Refuse a word that is none of the command's options or commands."""
    manual = f"see python -m {program} --help"
    option = _option(word)
    if hint := getattr(command, "RENAMED", {}).get(option):
        raise UsageError(f"{program} has no option {option}: {hint}.")
    if word.startswith("-"):
        options = list_options(command)
        if option in options:
            raise UsageError(f"{option} is an option of {program}; write it behind {names[-1]}.")
        what, near = f"option {option}", difflib.get_close_matches(option, options, n=1, cutoff=0.7)
    elif commands := list_commands(command):
        what, near = f"command {word!r}", difflib.get_close_matches(word, commands, n=1)
    else:
        raise UsageError(
            f"{program} cannot tell what {word!r} is for. Quote a value that has spaces, and "
            f"repeat the option before each of several values; {manual}."
        )
    meant = f"did you mean {near[0]}? Else {manual}" if near else manual
    raise UsageError(f"{program} has no {what}; {meant}.")


def _refuse_value(event: events.InstantiationFailure, words: Sequence[str]) -> NoReturn:
    """Refuse the value of an option, or pass on why the dataclass refuses it."""
    failure = sys.exc_info()[1]
    reason = failure.__context__ if failure else None
    if isinstance(reason, KosmosGError):
        raise reason
    argument, why = event.argument, event.message.partition("\n")[0]
    if argument is None:
        raise UsageError(f"{why}.")
    name, metavar = _name(argument), argument.lowered.metavar or ""
    if not {"INT", "FLOAT"} & set(metavar.split()):
        raise UsageError(f"{name} cannot be used: {why}.")
    found, count = _value(argument.lowered.name_or_flags, words), metavar.count(" ") + 1
    noun = "whole number" if "INT" in metavar else "number"
    wanted = f"a {noun}" if count == 1 else f"{count} {noun}s"
    raise UsageError(f"{name} is {' '.join(found[:count])}; it must be {wanted}.")


def _name(argument: Any) -> str:
    """What the user calls an option, or a value without one."""
    lowered = argument.lowered
    return lowered.metavar if argument.is_positional() else lowered.name_or_flags[-1]


def _option(word: str) -> str:
    """The option that a word begins with."""
    return word.partition("=")[0].replace("_", "-")


def _value(names: Sequence[str], words: Sequence[str]) -> list[str]:
    """Find what was given for an option: the words behind it where it stands last."""
    found: list[str] = []
    for place, word in enumerate(words):
        if _option(word) in names:
            _, equals, value = word.partition("=")
            found = [value] if equals else [*words[place + 1 :]]
    return found


# ------------------------------------------------------------------ what a command takes


def find_command(kind: type, words: Sequence[str]) -> tuple[list[str], type]:
    """Follow the names of commands: ``train``, then ``lm``.

    Returns:
        The names, and the dataclass of the last.
    """
    names: list[str] = []
    for word in words:
        commands = list_commands(kind)
        if word in commands:
            names.append(word)
            kind = commands[word]
    return names, kind


def list_commands(kind: type) -> dict[str, type]:
    """The dataclasses of which a command takes one, by name."""
    for hint in get_type_hints(kind, include_extras=True).values():
        if commands := _commands_of(hint):
            return commands
    return {}


def _commands_of(hint: Any) -> dict[str, type]:
    """Read a union of dataclasses; as tyro, name them as their annotations or classes say."""
    arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    named = {
        arm.__metadata__[0].name if get_origin(arm) is Annotated else arm.__name__.lower(): (
            arm.__origin__ if get_origin(arm) is Annotated else arm
        )
        for arm in arms
    }
    return named if all(map(is_dataclass, named.values())) else {}


def list_options(kind: Any) -> list[str]:
    """The options of a command, with those of the dataclasses in it, and with former names."""
    hints, found = get_type_hints(kind, include_extras=True), []
    for field in fields(kind):
        hint, notes = hints[field.name], get_args(hints[field.name])
        if is_dataclass(hint):
            found += list_options(hint)
        elif not _commands_of(hint) and tyro.conf.Positional not in notes:
            found.append(f"--{field.name.replace('_', '-')}")
            for note in notes:
                found += getattr(note, "aliases", None) or ()
    return found

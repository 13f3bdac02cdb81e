"""What the command line says, of itself and of words that it cannot read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kosmosg.cli import main as cli
from kosmosg.cli.parsing import UsageError, list_commands, list_options
from miniature import __main__ as miniature
from tests.cli.options import PROGRAMS, read_options

MAINS = {"kosmosg": cli.main, "miniature": miniature.main}


def all_commands(kind: type, *names: str) -> Iterator[tuple[tuple[str, ...], type]]:
    yield names, kind
    for name, each in list_commands(kind).items():
        yield from all_commands(each, *names, name)


@pytest.mark.parametrize(("package", "count"), [("kosmosg", 20), ("miniature", 11)])
def test_every_command_has_help_and_every_option_a_sentence(
    package: str, count: int, capsys: pytest.CaptureFixture
) -> None:
    commands = [*all_commands(PROGRAMS[package])]
    assert len(commands) == count
    for names, kind in commands:
        with pytest.raises(SystemExit) as caught:
            MAINS[package]([*names, "--help"])
        assert caught.value.code == 0
        printed = capsys.readouterr().out
        assert f"usage: python -m {' '.join([package, *names])} " in printed
        for option in list_options(kind):
            assert re.search(rf"{option}[, ][^()]*[A-Za-z.][^()]*\.\s", printed), (names, option)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # commands
        (
            "",
            "kosmosg needs a command: generate, mix, demo, convert, download, new, train, estimate",
        ),
        ("train", "kosmosg train needs a command: lm, align, instruct."),
        ("generat", "kosmosg has no command 'generat'; did you mean generate? Else see python -m"),
        ("train cat", "kosmosg train has no command 'cat'; see python -m kosmosg train --help."),
        # options
        ("generate", "kosmosg generate needs --prompt; see python -m kosmosg generate --help."),
        ("mix a.png", "kosmosg mix needs SECOND; see python -m kosmosg mix --help."),
        ("generate --promt x", "kosmosg generate has no option --promt; did you mean --prompt?"),
        ("generate --prompt x --fast", "kosmosg generate has no option --fast; see python -m kos"),
        ("generate --prompt a dog", "cannot tell what 'dog' is for. Quote a value that has spaces"),
        ("convert --fast", "kosmosg convert has no option --fast; see python -m kosmosg convert"),
        ("mix --frmes 3 a b", "kosmosg mix has no option --frmes; did you mean --frames?"),
        ("train --weights w lm", "--weights is an option of kosmosg train lm; write it behind lm."),
        ("mix a b --steps 8", "mix has no option --steps: --frames says how many images the strip"),
        # values
        (
            "generate --prompt",
            "--prompt needs a value; one that begins with - is written --pro",
        ),
        ("generate --prompt a --scheduler LMS", "--scheduler is 'LMS'; choose one of DPMSolverM"),
        ("generate --prompt a --steps ten", "--steps is ten; it must be a whole number."),
        ("generate --prompt a --steps=1.5", "--steps is 1.5; it must be a whole number."),
        ("generate --prompt a --guidance_scale x", "--guidance-scale is x; it must be a number."),
        ("generate --prompt a --seed None", "--seed is None; it must be a whole number."),
        ("train lm --betas 0.9 --data a", "--betas needs 2 values; one that begins with -"),
    ],
)
def test_words_that_cannot_be_read(words: str, message: str, capsys: pytest.CaptureFixture) -> None:
    """One line, which names the option, the value and the remedy, and the shell's 2."""
    assert cli.main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert message in captured.err


def test_two_numbers(capsys: pytest.CaptureFixture) -> None:
    words = "train probe --output o --steps 1 --batch-size 1 --betas 0.9 x"
    assert miniature.main(words.split()) == 2
    assert capsys.readouterr().err == "error: --betas is 0.9 x; it must be 2 numbers.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lora-scale 0.5", "--lora-scale needs --lora, which it acts on. Give --lora, or"),
        ("--control-type depth", "--control-type needs --control-image"),
        ("--control-map", "--control-map needs --control-image"),
        ("--control-scale 0.5", "--control-scale needs --control-image"),
        ("--init-mask m.png", "--init-mask needs --init-image"),
        ("--prompt-strength 0.5", "--prompt-strength needs --init-image"),
    ],
)
def test_what_acts_on_nothing_is_refused(
    words: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    """As the server refuses it, and before weights are opened."""
    assert cli.main(["generate", "--prompt", "a", "--weights", "nowhere", *words.split()]) == 1
    assert message in capsys.readouterr().err


def test_how_words_may_be_written() -> None:
    found = read_options(["generate", "--prompt=-a <i>", "--image", "a", "-v", "--image=b"])
    assert (found["prompt"], found["image"]) == ("-a <i>", (Path("a"), Path("b")))
    assert found["verbose"]
    # What stands last counts, so that a script's settings can be changed behind them.
    assert read_options(["-v", "generate", "--prompt", "a", "--seed", "1", "--seed", "2"]) == {
        **read_options(["generate", "--prompt", "a"]),
        **{"seed": 2, "verbose": True},
    }
    found = read_options(["download", "controlnet", "canny", "--url", "a=b", "--url", "c=d"])
    assert (found["groups"], found["url"]) == (("controlnet", "canny"), ("a=b", "c=d"))


def test_a_line_that_is_only_incomplete_is_told_from_a_wrong_one() -> None:
    for words, incomplete in (
        (["train", "lm", "--seed"], True),
        (["train"], True),
        (["convert"], True),
        (["convert", "--fast"], False),
        (["generate", "--prompt", "a", "--dtype", "int8"], False),
    ):
        with pytest.raises(UsageError) as caught:
            read_options(words)
        assert caught.value.incomplete == incomplete

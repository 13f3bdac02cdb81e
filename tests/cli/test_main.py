"""How a command begins and ends."""

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from kosmosg.cli import main as cli
from tests.conftest import ROOT


def test_help_needs_no_torch() -> None:
    """Importing it takes seconds."""
    program = (
        "import sys, kosmosg.cli.main, miniature.__main__ as miniature\n"
        "for main in (kosmosg.cli.main.main, miniature.main):\n"
        "    try: main(['train', '--help'])\n"
        "    except SystemExit: pass\n"
        "assert not {'torch', 'PIL', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_download_of_a_manifest_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["download", "--manifest", str(tmp_path / "m.toml")]) == 1
    assert "error: " in capsys.readouterr().err
    assert cli.main(["download", "--url", "no-equals-sign"]) == 1
    assert "write NAME=URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (PermissionError(13, "Permission denied", "/no"), 1, "error: /no: Permission denied.\n"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device.\n"),
        (ConnectionError("the line is dead.\nAnd more."), 1, "error: the line is dead.\n"),
        (TimeoutError(), 1, "error: TimeoutError.\n"),
        (BrokenPipeError(32, "Broken pipe"), 1, "error: Broken pipe.\n"),  # not that of the output
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_stops_a_command(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("kosmosg.cli.convert.Download.run", fail)
    assert cli.main(["download"]) == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("words", [["--help"], ["train", "lm", "--help"]])
def test_a_reader_that_goes_away(words: list[str]) -> None:
    """``python -m kosmosg --help | head -0``: the status of a broken pipe, and no traceback."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "kosmosg", *words]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_installed_command_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["kosmosg"].partition(":")
    assert getattr(import_module(module), name) is cli.main


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(_: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr("kosmosg.cli.convert.New.run", fill)
    assert cli.main(["new", "w", "--tokenizer", "t", "--stable-diffusion", "s"]) == 1
    assert capsys.readouterr().err == "error: No space left on device.\n"

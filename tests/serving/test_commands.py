"""``make serve`` and ``make predict`` say in one line why no server can start, and end."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local_server import ROOT


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the Makefile's as make does."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", [["scripts.serve"], ["scripts.predict", "samples/neon.json"]])
def test_missing_weights(command: list[str], tmp_path: Path) -> None:
    done = run(*command, "--weights", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"no weights in {tmp_path / 'nowhere'}" in done.stderr
    assert "WEIGHTS=weights/miniature" in done.stderr


def test_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("scripts.serve", "--weights", str(tmp_path), "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"port {port} cannot be listened on (Address already in use)" in done.stderr


def test_no_such_port(tmp_path: Path) -> None:
    done = run("scripts.serve", "--weights", str(tmp_path), "--port", "99999")
    assert done.returncode == 1
    assert "not from 0 to 65535" in done.stderr


@pytest.mark.parametrize(
    ("request_file", "message"),
    [
        ("samples/nowhere.json", "samples/nowhere.json cannot be read (No such file or directory)"),
        ("samples", "samples cannot be read (Is a directory)"),
        ("samples/cat.jpg", "samples/cat.jpg is not text. Name a request file"),
    ],
)
def test_what_is_no_request(request_file: str, message: str, tmp_path: Path) -> None:
    done = run("scripts.predict", request_file, "--weights", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr

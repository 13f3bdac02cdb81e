"""The page is opened, or one line says why not."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import pytest
import requests
from gradio.processing_utils import async_move_files_to_cache

from kosmosg.cli import main as cli
from kosmosg.demo.drawing import Studio
from kosmosg.demo.launch import is_this_machine, open_page
from kosmosg.demo.local import LocalGenerator
from kosmosg.demo.page import make_page
from scripts.local_server import free_port
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--weights nowhere", "There are no weights in nowhere"),
        ("--weights . --port 70000", "--port is 70000; it must be from 0 to 65535"),
        ("--weights . --host 192.0.2.1", "cannot be on 192.0.2.1:7860"),
        ("--weights . --host no.such.invalid", "Name another --port or --host"),
        ("--target http://127.0.0.1:1 --weights x", "Leave them out, or --target"),
        ("--target 127.0.0.1:1", "is no address"),
        ("--target http://127.0.0.1:1", "does not answer"),
    ],
)
def test_mistakes(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "--port" not in words and "--host" not in words:
        words += f" --port {free_port()}"
    assert cli.main(["demo", *words.split()]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert told.count("error: ") == 1 and "Traceback" not in told


def test_a_port_that_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["demo", "--weights", ".", "--port", str(port)]) == 1
    assert f"cannot be on 127.0.0.1:{port} (Address already in use)" in capsys.readouterr().err


def test_addresses_of_this_machine() -> None:
    assert all(map(is_this_machine, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
    assert not any(map(is_this_machine, ("0.0.0.0", "::", "192.168.0.7", "example.org")))


def test_the_browser_is_held_to_this_address_and_files_are_not_given_away(address: str) -> None:
    answer = requests.get(address, timeout=30)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "fonts.googleapis.com" not in answer.text
    for path in (f"{ROOT}/README.md", "README.md", "/etc/passwd", f"{ROOT}/weights/README.md"):
        assert requests.get(f"{address}/gradio_api/file={path}", timeout=30).status_code == 403
    far = f"{address}/gradio_api/file=http://192.0.2.1/image.png"
    assert requests.get(far, timeout=30).status_code == 403


def test_a_large_upload_is_refused(address: str) -> None:
    def content():
        for _ in range(201):
            yield b"\0" * 1_000_000

    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'

    def body():
        yield head
        yield from content()
        yield b"\r\n--x--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        answer = requests.post(
            f"{address}/gradio_api/upload", data=body(), headers=kind, timeout=60
        )
    except requests.ConnectionError:
        return  # it does not read to the end
    assert answer.status_code == 413


def test_a_password(generator: LocalGenerator, samples: Path) -> None:
    with open_page(generator, port=free_port(), password="geheim", samples=samples) as address:
        config = f"{address}/config"
        assert requests.get(config, timeout=30).status_code == 401
        session = requests.Session()
        for password, status in (("wrong", 400), ("geheim", 200)):
            given = {"username": "anybody", "password": password}
            answer = session.post(f"{address}/login", data=given, timeout=30)
            assert answer.status_code == status
        assert session.get(config, timeout=30).status_code == 200


def test_an_address_in_place_of_a_file_is_not_fetched(
    generator: LocalGenerator, samples: Path, tmp_path: Path
) -> None:
    page = make_page(Studio(generator, tmp_path), samples)
    gallery = next(block for block in page.blocks.values() if isinstance(block, gr.Gallery))
    value = {"path": "http://192.0.2.1/image.png", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(gr.Error, match="Send the file itself"):
        moving = async_move_files_to_cache(value, gallery, check_in_upload_folder=True)
        # The browser's driver has a loop in this thread.
        ThreadPoolExecutor().submit(asyncio.run, moving).result()


@pytest.mark.slow
def test_the_command_serves_until_it_is_stopped(weights: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "kosmosg", "demo", "--weights", str(weights)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout
        lines = iter(running.stdout.readline, "")
        told = next(line for line in lines if "The page is on" in line)
        assert f"http://127.0.0.1:{port}" in told
        assert requests.get(f"http://127.0.0.1:{port}", timeout=60).ok
        assert [path for path in tmp_path.iterdir() if path.name.startswith("kosmosg-demo-")]
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    deadline = time.monotonic() + 10
    while [path for path in tmp_path.iterdir() if path.name.startswith("kosmosg-demo-")]:
        assert time.monotonic() < deadline
        time.sleep(0.1)

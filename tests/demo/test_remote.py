"""The page in front of a running container: the real server of Cog."""

import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from kosmosg.demo.launch import open_page
from kosmosg.demo.remote import RemoteError, RemoteGenerator
from kosmosg.demo.turns import CancelledError, Turn, Turns
from kosmosg.errors import SettingError
from scripts.local_server import LocalServer, free_port
from tests.demo.conftest import open_tab
from tests.demo.driving import draw, give, images, prompt, results, set_number, status
from tests.serving.client import encode, photo

INPUTS = {"prompt": "a cat", "num_images": 1, "num_inference_steps": 2, "seed": 3}
LONG = {"prompt": "a cat", "num_images": 8, "num_inference_steps": 250}


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[LocalServer]:
    """A container, without Docker."""
    with LocalServer(weights) as running:
        yield running


@pytest.fixture(scope="module")
def remote(server: LocalServer) -> RemoteGenerator:
    """What asks it."""
    return RemoteGenerator(server.url + "/")


def wait_for(condition) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_draws_what_the_server_draws(remote: RemoteGenerator, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encode(photo(1)))
    inputs = INPUTS | {"prompt": "a <i>", "image1": tmp_path / "photo.png"}
    (file,) = remote.generate(inputs, tmp_path, Turn("me"))
    assert file.suffix == ".webp" and file.stat().st_size > 100
    (again,) = remote.generate(inputs | {"seed": 3}, tmp_path, Turn("me"))
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt": "a <i>"}, "has 1 <i> marker, but 0 input images"),
        ({"num_inference_steps": 251}, "num_inference_steps: 251 is greater than the maximum"),
        ({"width": 65}, "multiple of 8"),
    ],
)
def test_what_the_server_refuses_is_told(
    remote: RemoteGenerator, tmp_path: Path, changed: dict, message: str
) -> None:
    with pytest.raises(RemoteError, match=re.escape(message)):
        remote.generate(INPUTS | changed, tmp_path, Turn("me"))


def test_cancelling_and_a_server_that_is_busy(
    remote: RemoteGenerator, server: LocalServer, tmp_path: Path
) -> None:
    here, there = Turns(), Turns()  # of two pages
    (tmp_path / "a").mkdir()
    first = here.take("a", lambda turn: remote.generate(LONG, tmp_path / "a", turn))
    wait_for(lambda: server.health().get("status") == "BUSY")
    second = there.take("b", lambda turn: remote.generate(INPUTS, tmp_path, turn))
    time.sleep(0.3)
    assert not second.future.done()
    start = time.monotonic()
    first.cancel()
    with pytest.raises(CancelledError):
        first.future.result(30)
    assert time.monotonic() - start < 10  # to the end it takes much longer
    assert len(second.future.result(30)) == 1
    here.close()
    there.close()


@pytest.mark.parametrize("target", ["localhost:5000", "ftp://somewhere", "http://"])
def test_what_is_no_address(target: str) -> None:
    with pytest.raises(SettingError, match="no address"):
        RemoteGenerator(target)


def test_nobody_is_there() -> None:
    with pytest.raises(RemoteError, match=r"does not answer \(.*refused.*\)"):
        RemoteGenerator(f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("body", [b"<html></html>", b"{}", b'{"status": "READY"}', b"[]"])
def test_somebody_else_is_there(body: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    other = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    with pytest.raises(RemoteError, match="is no container of KOSMOS-G"):
        RemoteGenerator(f"http://127.0.0.1:{other.server_port}")
    other.shutdown()
    other.server_close()


def test_in_the_browser(
    browser: Browser, remote: RemoteGenerator, samples: Path, elsewhere: list[str]
) -> None:
    with open_page(remote, port=free_port(), samples=samples) as address:
        context = browser.new_context()
        page = open_tab(context.new_page(), address, elsewhere)
        expect(page.locator("#heading")).to_contain_text("the container at 127.0.0.1")
        prompt(page).fill("a ")
        prompt(page).press("End")
        give(page, encode(photo(1)))
        expect(images(page)).to_have_count(1)
        first, other = draw(page, seed=1), draw(page, seed=2)
        assert first != other
        expect(results(page)).to_have_count(1)
        set_number(page, "Steps", 250)
        set_number(page, "Images", 8)
        page.locator("#draw").click()
        expect(status(page)).to_contain_text("It does not tell of its steps")
        page.locator("#cancel").click()
        expect(status(page)).to_have_text("Cancelled.")
        page.get_by_role("tab", name="Mix two images").click()
        expect(page.locator("#write")).to_contain_text("A container cannot mix images")
        context.close()
    assert elsewhere == []

"""A real browser, and the page in front of a small random model."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from kosmosg.demo.launch import open_page
from kosmosg.demo.local import LocalGenerator
from kosmosg.serving.service import Service
from scripts.local_server import free_port
from tests import tiny
from tests.serving.client import encode, photo

INSTALL = "sudo apt-get install chromium"
# It asks nobody but us for anything, needs no display, and may run as root.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-first-run"),
]
PATIENCE = 60_000  # milliseconds; the machine may be busy


@pytest.fixture(scope="package")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random weights with the VAE's real scale."""
    return tiny.write_weights(tmp_path_factory.mktemp("demo") / "weights", scale=8)


@pytest.fixture(scope="package")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one example, and with a file that is none."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "photo.png").write_bytes(encode(photo(1)))
    (folder / "a-photo.json").write_text(
        '{"input": {"image1": "@photo.png", "prompt": "a <i> in the snow", "num_images": 2,'
        ' "num_inference_steps": 3, "seed": 4}}'
    )
    (folder / "broken.json").write_text("{")
    return folder


@pytest.fixture(scope="package")
def generator(weights: Path) -> LocalGenerator:
    """What draws."""
    return LocalGenerator(Service.open(weights))


@pytest.fixture(scope="module")
def address(generator: LocalGenerator, samples: Path) -> Iterator[str]:
    """The page of the tests of one module."""
    with open_page(generator, port=free_port(), samples=samples) as url:
        yield url


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium from the system's packages, or a skip that says how to get it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip(f"there is no chromium: {INSTALL}")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def elsewhere() -> list[str]:
    """Addresses other than ours that the browser was made to ask."""
    return []


@pytest.fixture
def page(browser: Browser, address: str, elsewhere: list[str]) -> Iterator[Page]:
    """One tab, which asks nobody else."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    tab = open_tab(context.new_page(), address, elsewhere)
    yield tab
    context.close()
    assert elsewhere == []


def open_tab(tab: Page, address: str, elsewhere: list[str]) -> Page:
    """Open the page in a tab and wait until it can be used."""
    tab.set_default_timeout(PATIENCE)
    ours = (address, "data:", "blob:")
    tab.on(
        "request", lambda seen: None if seen.url.startswith(ours) else elsewhere.append(seen.url)
    )
    tab.goto(address)
    tab.wait_for_function("document.querySelector('#seed input')?.value === ''")
    return tab

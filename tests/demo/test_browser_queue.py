"""In the browser: waiting, cancelling, and leaving."""

import os
import re
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.demo.conftest import open_tab
from tests.demo.driving import draw, give, images, prompt, set_number, status
from tests.serving.client import encode, photo

LONG = 250  # steps
SLOW = 384  # pixels
NOTE_STEP = """
() => document.querySelector("#cancel").addEventListener("click", () => {
  window.stepAtCancel = document.querySelector("#progress [role=status]").textContent;
}, true)
"""


def step_of(told: str) -> int:
    """The step that a status tells of."""
    found = re.search(r"step (\d+)", told, re.IGNORECASE)
    assert found, told
    return int(found[1])


def begin(page: Page) -> None:
    """Begin to draw something that takes long."""
    prompt(page).fill("a cat")
    set_number(page, "Steps", LONG)
    set_number(page, "Images", 8)
    page.locator("#draw").click()


def test_steps_are_shown_and_cancelling_stops_them(page: Page) -> None:
    for side in ("Width", "Height"):  # a step takes longer than it takes to be shown
        set_number(page, side, SLOW)
    begin(page)
    expect(status(page)).to_have_text(re.compile(rf"Step \d+ of {LONG}"))
    expect(page.locator(".previews img")).to_have_count(8)
    expect(page.locator("#draw")).to_be_disabled()
    page.evaluate(NOTE_STEP)
    page.locator("#cancel").click()
    expect(status(page)).to_have_text(re.compile(rf"Cancelled after step \d+ of {LONG}\."))
    shown, stopped = page.evaluate("window.stepAtCancel"), status(page).inner_text()
    assert step_of(shown) <= step_of(stopped) <= step_of(shown) + 2
    for side in ("Width", "Height"):
        set_number(page, side, "")
    expect(page.locator("#cancel")).to_be_disabled()
    set_number(page, "Images", 1)
    assert len(draw(page)) == 1


def test_the_second_tab_waits_says_its_place_and_takes_over(
    page: Page, browser: Browser, address: str, elsewhere: list[str]
) -> None:
    # Of three users, as a browser opens six connections to one address and a tab holds two.
    second, third = (
        open_tab(browser.new_context().new_page(), address, elsewhere) for _ in range(2)
    )
    begin(page)
    expect(status(page)).to_have_text(re.compile(r"Step \d+"))
    begin(second)
    expect(status(second)).to_have_text("In the queue: 1 request is before yours.")
    begin(third)
    expect(status(third)).to_have_text("In the queue: 2 requests are before yours.")
    second.locator("#cancel").click()
    expect(status(second)).to_have_text("Cancelled.")
    expect(status(third)).to_have_text("In the queue: 1 request is before yours.")
    page.close()
    expect(status(third)).to_have_text(re.compile(rf"Step \d+ of {LONG}"))
    third.locator("#cancel").click()
    expect(status(third)).to_have_text(re.compile("Cancelled"))
    for tab in (second, third):
        tab.context.close()


def test_nothing_stays_of_a_tab_that_is_closed(
    page: Page, address: str, elsewhere: list[str]
) -> None:
    root = Path(os.environ["GRADIO_TEMP_DIR"])
    before = {path for path in root.rglob("*") if path.is_file()}
    tab = open_tab(page.context.new_page(), address, elsewhere)
    give(tab, encode(photo(77)), "mine.png")
    expect(images(tab)).to_have_count(1)
    draw(tab)
    assert {path for path in root.rglob("*") if path.is_file()} > before
    tab.close()
    deadline = time.monotonic() + 30
    while {path for path in root.rglob("*") if path.is_file()} - before:
        left = {path for path in root.rglob("*") if path.is_file()} - before
        assert time.monotonic() < deadline, left
        time.sleep(0.1)

"""In the browser: small screens, and no mouse."""

import re

from playwright.sync_api import Browser, Page, expect

from tests.demo.conftest import open_tab
from tests.demo.driving import draw, prompt, results, set_number


def test_a_phone_shows_everything_below_each_other(
    browser: Browser, address: str, elsewhere: list[str]
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = open_tab(context.new_page(), address, elsewhere)
    prompt(page).fill("a cat")
    draw(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    places = [page.locator(f"#{name}").bounding_box() for name in ("write", "results", "settings")]
    tops = [place["y"] for place in places if place]
    assert len(tops) == 3 and tops == sorted(tops)
    assert all(place and place["width"] > 280 for place in places)
    context.close()


def test_the_keyboard_is_enough(page: Page) -> None:
    set_number(page, "Steps", 2)
    prompt(page).focus()
    page.keyboard.type("a cat on the beach")
    # From the prompt on, the tab key leads to the button, past what adds images.
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "draw":
            break
    else:
        raise AssertionError("the tab key does not lead to the button")
    page.keyboard.press("Enter")
    expect(results(page)).to_have_count(1)
    before = results(page).first.get_attribute("src") or ""
    prompt(page).focus()
    page.keyboard.press("Shift+Enter")
    expect(results(page).first).not_to_have_attribute("src", before)
    # Every control that can be seen has a name that is read out.
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea")]
            .filter((each) => each.offsetParent && each.type !== "file" && each.type !== "hidden")
            .filter((each) => !(each.textContent.trim() || each.labels?.length || each.ariaLabel
                || each.title || each.getAttribute("aria-labelledby")))
            .map((each) => each.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []
    assert re.search("drawn", page.locator("#progress [role=status]").inner_text())

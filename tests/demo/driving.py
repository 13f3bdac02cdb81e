"""What a user does on the page, and sees."""

import base64
import hashlib
import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.demo.conftest import PATIENCE

expect.set_options(timeout=PATIENCE)
DROP = """
([kind, name, content, type]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  const target = document.querySelector("#prompt textarea");
  const options = { bubbles: true, cancelable: true };
  if (kind === "paste") {
    target.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, ...options }));
    return;
  }
  for (const step of ["dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(step, { dataTransfer: data, ...options }));
  }
}
"""


def prompt(page: Page) -> Locator:
    """Where the prompt is written."""
    return page.locator("#prompt textarea")


def status(page: Page) -> Locator:
    """The line that says how it goes."""
    return page.locator("#progress [role=status]")


def images(page: Page) -> Locator:
    """The images of the prompt."""
    return page.locator("#images button img")


def results(page: Page) -> Locator:
    """The images that were drawn."""
    return page.locator("#images-drawn .grid-wrap img")


def give(page: Page, content: bytes, name: str = "photo.png", kind: str = "drop") -> None:
    """Drop a file on the prompt, or paste it."""
    suffix = Path(name).suffix[1:]
    page.evaluate(DROP, [kind, name, base64.b64encode(content).decode(), f"image/{suffix}"])


def set_number(page: Page, label: str, value: object) -> None:
    """Fill in a number."""
    field = page.get_by_label(re.compile(f"^(number input for )?{label}$")).first
    field.fill(str(value))
    field.press("Tab")


def draw(page: Page, *, steps: int = 2, seed: int | None = None) -> list[str]:
    """Draw, and return digests of the images."""
    set_number(page, "Steps", steps)
    if seed is not None:
        set_number(page, "Seed", seed)
    return redraw(page, page.locator("#draw"))


def redraw(page: Page, button: Locator) -> list[str]:
    """Press what draws, wait for other images than those that are there, and return digests."""
    before = results(page).first.get_attribute("src") if results(page).count() else ""
    button.click()
    expect(results(page).first).not_to_have_attribute("src", before or "")
    expect(status(page)).to_have_text(re.compile("drawn"))
    return digests(page)


def digests(page: Page) -> list[str]:
    """Fetch the images that are shown as results."""
    found = []
    for image in results(page).all():
        answer = page.request.get(image.get_attribute("src") or "")
        assert answer.ok
        found.append(hashlib.sha256(answer.body()).hexdigest())
    return found

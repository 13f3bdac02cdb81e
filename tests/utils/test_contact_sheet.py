"""Contact sheets as files."""

from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from kosmosg.utils.contact_sheet import Card, write_contact_sheet

CARD = Card(
    group="cat",
    inputs=[Image.new("RGB", (640, 480), "red")],
    prompt="<i>, red",
    output=Image.new("RGB", (512, 512), "blue"),
    scores={"DINO": 0.5},
)


def sheet(folder: Path, title: str, table: str, cards: Iterable[Card]) -> str:
    write_contact_sheet(folder / "sheet.html", title=title, table=table, cards=cards)
    assert [path.name for path in folder.iterdir()] == ["sheet.html"]
    return (folder / "sheet.html").read_text("utf-8")


class Page(HTMLParser):
    """Notes elements, texts and addresses of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_sheet_needs_nothing_else_and_says_what_it_was_told(tmp_path: Path) -> None:
    evil = '<script>alert("&")</script>'
    cards = [
        CARD,
        Card(group="cat", inputs=(), prompt=evil, output=CARD.output),
        Card(group=evil, inputs=(), prompt="<i>", output=Image.new("L", (8, 8)), scores={evil: 1}),
    ]
    page = Page(sheet(tmp_path, evil, f"| {evil} |", cards))
    assert "script" not in page.tags
    assert page.tags.count("h2") == page.tags.count("main") == 2
    assert page.tags.count("img") == 4
    assert all(each.startswith("data:image/jpeg;base64,") for each in page.addresses)
    text = "".join(page.texts)
    assert text.count(evil) == 6  # title, heading, table, prompt, group, score
    assert "<i>, red" in text
    assert "DINO 0.500" in text


def test_a_sheet_without_images(tmp_path: Path) -> None:
    assert Page(sheet(tmp_path, "none", "", [])).tags.count("img") == 0


@pytest.mark.parametrize("size", [(640, 480), (8, 8), (100, 900)])
def test_images_are_small_on_the_sheet(tmp_path: Path, size: tuple[int, int]) -> None:
    card = Card(group="a", inputs=(), prompt="", output=Image.effect_noise(size, 80))
    assert len(sheet(tmp_path, "", "", [card])) < 40_000

"""In the browser: writing a prompt with images in it, and drawing it."""

import re
import struct
import zlib
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.demo.driving import draw, give, images, prompt, redraw, results, set_number, status
from tests.serving.client import encode, photo


def large_header(side: int) -> bytes:
    """A PNG of a few bytes that claims to be a large image."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + encode(photo(1))[33:]


def test_a_prompt_is_drawn_and_the_seed_decides(page: Page) -> None:
    prompt(page).fill("a cat in the snow")
    first, other, again = (draw(page, seed=seed) for seed in (1, 2, 1))
    assert len(first) == 1
    assert first == again != other
    expect(page.locator("#images-drawn")).to_contain_text("seed 1")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_stands_where_the_cursor_is(page: Page, kind: str) -> None:
    prompt(page).fill("a  in the snow")
    for key in ("Home", "ArrowRight", "ArrowRight"):
        prompt(page).press(key)
    give(page, encode(photo(1)), "first.png", kind)
    expect(prompt(page)).to_have_value("a <i> in the snow")
    give(page, encode(photo(2)), "second.png", kind)  # behind the one before
    expect(prompt(page)).to_have_value("a <i> <i> in the snow")
    expect(images(page)).to_have_count(2)
    sources = [image.get_attribute("src") or "" for image in images(page).all()]
    assert [source.rpartition("/")[2] for source in sources] == ["first.png", "second.png"]


def test_images_are_moved_replaced_and_removed(page: Page) -> None:
    prompt(page).fill("")
    for number in (1, 2):
        give(page, encode(photo(number)), f"{number}.png")
        expect(images(page)).to_have_count(number)

    def names() -> list[str]:
        found = [image.get_attribute("src") or "" for image in images(page).all()]
        return [source.rpartition("/")[2] for source in found]

    images(page).first.click()
    page.get_by_role("button", name="Later").click()
    expect(images(page).first).to_have_attribute("src", re.compile("2.png"))
    assert names() == ["2.png", "1.png"]
    content = encode(photo(3))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Replace").click()
    chooser.value.set_files({"name": "3.png", "mimeType": "image/png", "buffer": content})
    expect(images(page).last).to_have_attribute("src", re.compile("3.png"))
    assert names() == ["2.png", "3.png"]
    images(page).first.click()
    page.get_by_role("button", name="Remove").click()
    expect(images(page)).to_have_count(1)
    expect(prompt(page)).to_have_value("<i>")
    assert names() == ["3.png"]
    draw(page)


def test_an_example_is_filled_in_and_drawn_again_with_a_seed(page: Page) -> None:
    page.get_by_role("button", name="a photo").click()
    expect(prompt(page)).to_have_value("a <i> in the snow")
    expect(images(page)).to_have_count(1)
    expect(page.get_by_label("Seed")).to_have_value("4")
    two = redraw(page, page.locator("#draw"))
    assert len(two) == 2
    results(page).nth(1).click()
    assert redraw(page, page.get_by_role("button", name="Again with this seed")) == two[1:]
    expect(page.get_by_label("Seed")).to_have_value("5")
    expect(status(page)).to_have_text("1 image drawn.")


def test_settings_come_back_as_a_request_and_a_line(page: Page) -> None:
    give(page, encode(photo(1)), "my photo.png")
    expect(images(page)).to_have_count(1)
    draw(page, steps=3, seed=9)
    with page.expect_download() as download:
        page.get_by_role("button", name="Request file").click()
    text = download.value.path().read_text()
    assert '"image1": "data:image/png;base64,' in text
    assert '"num_inference_steps": 3' in text and '"seed": 9' in text
    page.get_by_role("button", name="Settings of these images").click()
    code = page.locator(".code").first
    expect(code).to_contain_text("cog predict")
    expect(code).to_contain_text("-i image1='@my photo.png'")
    expect(code).to_contain_text("-i seed=9")


def test_the_hint_and_the_error_say_what_the_model_says(page: Page) -> None:
    prompt(page).fill("<i>" * 40)
    give(page, encode(photo(1)))
    expect(images(page)).to_have_count(1)
    prompt(page).fill("<i>" * 40)
    expect(page.locator(".hint").first).to_contain_text("40 <i> markers, but 1 input image came")
    page.locator("#draw").click()
    alert = page.locator("#write [role=alert]")
    expect(alert).to_contain_text("The prompt has 40 <i> markers")
    prompt(page).fill("a <i>")
    draw(page)
    expect(alert).to_have_count(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image that can"),
        ("empty.png", b"", "is an empty file"),
        ("renamed.png", b"%PDF-1.7 no image at all", "is not an image that can"),
        ("large.png", large_header(100_000), "too large to open safely"),
    ],
)
def test_what_is_no_image_is_refused_where_it_was_dropped(
    page: Page, name: str, content: bytes, message: str
) -> None:
    prompt(page).fill("a cat")
    give(page, content, name)
    expect(page.locator("#write [role=alert]")).to_contain_text(message)
    expect(prompt(page)).to_have_value("a cat")
    expect(images(page)).to_have_count(0)


def test_a_folder_is_refused_where_it_was_dropped(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "my images"
    folder.mkdir()
    (folder / "photo.png").write_bytes(encode(photo(1)))
    prompt(page).fill("a cat")
    box = prompt(page).bounding_box()
    assert box
    place = {"x": box["x"] + 20, "y": box["y"] + 20}
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    alert = page.locator("#write [role=alert]")
    expect(alert).to_have_text("my images is a folder. Open it and drop the images that are in it.")
    expect(prompt(page)).to_have_value("a cat")
    expect(images(page)).to_have_count(0)


def test_numbers_out_of_bounds_are_told_beside_them(page: Page) -> None:
    prompt(page).fill("a cat")
    set_number(page, "Width", 65)
    page.locator("#draw").click()
    expect(page.locator("#settings [role=alert]")).to_contain_text("multiple of 8. Try 64 or 72")
    set_number(page, "Width", "")
    set_number(page, "Seed", 1.5)
    page.locator("#draw").click()
    expect(page.locator("#settings [role=alert]")).to_contain_text("seed is 1.5")

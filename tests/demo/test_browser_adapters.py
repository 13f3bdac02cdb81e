"""In the browser: LoRA, ControlNet, a mask that is painted, mixing."""

import io
import re

from PIL import Image
from playwright.sync_api import Page, expect

from kosmosg.demo.local import LocalGenerator
from tests.demo.driving import draw, prompt, redraw, results, set_number
from tests.diffusion import loras
from tests.serving.client import encode, photo


def unfold(page: Page, name: str) -> None:
    """Open what is folded away."""
    page.get_by_role("button", name=name).click()


def choose(page: Page, place: str, content: bytes, name: str) -> None:
    """Choose a file."""
    kind = "image/png" if name.endswith(".png") else "application/octet-stream"
    field = page.locator(f"{place} input[type=file]").first
    field.set_input_files({"name": name, "mimeType": kind, "buffer": content})


def middle(page: Page) -> object:
    """The colour in the middle of the initial image, as it is seen."""
    seen = Image.open(io.BytesIO(page.locator("#init canvas").first.screenshot())).convert("RGB")
    return seen.getpixel((seen.width // 2, seen.height // 2))


def paint(page: Page) -> None:
    """Paint a stroke in the middle of the initial image, and see it."""
    canvas = page.locator("#init canvas").first
    expect(canvas).to_be_visible()
    for _ in range(10):  # the editor takes a moment to be ready
        page.locator("#init").get_by_label("Brush", exact=True).click()
        box = canvas.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x - 20, y)
        page.mouse.down()
        page.mouse.move(x + 20, y, steps=5)
        page.mouse.up()
        page.wait_for_timeout(300)
        if middle(page) == (225, 29, 72):
            return
    raise AssertionError("there is no paint")


def test_a_lora_changes_the_image_and_what_is_none_is_told_beside_it(
    page: Page, generator: LocalGenerator, tmp_path
) -> None:
    prompt(page).fill("a cat")
    plain = draw(page, seed=1)
    unfold(page, "LoRA")
    file = tmp_path / "style.safetensors"
    loras.write(file, loras.peft(loras.make_factors(generator.pipeline.unet)))
    choose(page, "#lora", file.read_bytes(), "style.safetensors")
    expect(page.locator("#lora")).to_contain_text("style")
    assert redraw(page, page.locator("#draw")) != plain
    page.locator("#lora").get_by_label("Remove this file").or_(
        page.locator("#lora").get_by_label("Clear")
    ).first.click()
    choose(page, "#lora", b"\x80\x04\x95pickle", "style.pkl")
    expect(page.locator("#lora")).to_contain_text("style.pkl")
    page.locator("#draw").click()
    alert = page.locator("#settings [role=alert]")
    expect(alert).to_contain_text("lora_weights")
    box = alert.bounding_box()
    assert box and box["y"] > (page.locator("#lora").bounding_box() or box)["y"]


def test_the_map_of_a_control_image_is_shown(page: Page) -> None:
    unfold(page, "ControlNet")
    choose(page, "#control", encode(photo(1, (64, 64))), "photo.png")
    expect(page.locator("#map img")).to_be_visible()
    answer = page.request.get(page.locator("#map img").get_attribute("src") or "")
    shown = Image.open(io.BytesIO(answer.body())).convert("L")
    assert shown.size == (64, 64)
    assert {value for _, value in shown.getcolors() or []} == {0, 255}  # edges
    prompt(page).fill("a cat")
    page.locator("#draw").click()
    # The small model has no ControlNet: that is said where the control image is.
    expect(page.locator("#settings [role=alert]")).to_contain_text("There is no ControlNet for")


def test_a_mask_is_painted_and_only_that_part_changes(page: Page) -> None:
    unfold(page, "Initial image and mask")
    image = photo(3, (64, 64))
    expect(page.locator("#init canvas").first).to_be_visible()
    for _ in range(10):  # the editor takes files only when it is ready, which nothing tells
        choose(page, "#init", encode(image), "init.png")
        page.wait_for_timeout(1000)
        if middle(page) != (255, 255, 255):
            break
    paint(page)
    prompt(page).fill("a cat")
    set_number(page, "How far to move from the image", 1)
    page.get_by_label("Format").click()
    page.get_by_role("option", name="png").click()
    draw(page, seed=1)
    answer = page.request.get(results(page).first.get_attribute("src") or "")
    drawn = Image.open(io.BytesIO(answer.body())).convert("RGB")
    assert drawn.size == (64, 64)
    assert (results(page).first.get_attribute("src") or "").endswith(".png")
    same = [
        drawn.getpixel(place) == image.getpixel(place) for place in ((1, 1), (32, 12), (62, 62))
    ]
    assert same == [True, True, True]  # the brush is as small as the image
    assert drawn.getpixel((32, 32)) != image.getpixel((32, 32))


def test_paint_without_an_image_is_told(page: Page) -> None:
    unfold(page, "Initial image and mask")
    paint(page)
    prompt(page).fill("a cat")
    page.locator("#draw").click()
    alert = page.locator("#settings [role=alert]")
    expect(alert).to_contain_text("init_mask needs init_image")


def test_two_images_are_mixed_and_a_slider_goes_along(page: Page) -> None:
    page.get_by_role("tab", name="Mix two images").click()
    set_number(page, "Steps", 2)
    page.locator("#mix").click()
    expect(page.locator("#write [role=alert]")).to_contain_text("image1 and image2")
    for number, place in enumerate(("#first", "#second")):
        choose(page, place, encode(photo(number)), f"{number}.png")
        expect(page.locator(f"{place} img")).to_be_visible()
    set_number(page, "Images from the first to the second", 3)
    page.locator("#mix").click()
    expect(page.locator("#progress [role=status]")).to_have_text(re.compile("3 images drawn"))
    expect(page.locator("#slide")).to_be_visible()
    large = page.locator("#images-drawn .preview img").first
    first = large.get_attribute("src") or ""
    assert "00-seed" in first
    set_number(page, "From the first image to the second", 3)
    expect(large).to_have_attribute("src", re.compile("02-seed"))

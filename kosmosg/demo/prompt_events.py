"""What happens in the prompt: images come, go and change places, and examples are filled in."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from kosmosg.demo import form, prompt_editor, show
from kosmosg.demo.drawing import Studio
from kosmosg.demo.layout import Page
from kosmosg.errors import KosmosGError
from kosmosg.prompts.images import open_image

PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # no interface for programs
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", **PRIVATE}
SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp")
# The cursor is known in the browser alone.
WITH_CURSOR = (
    "(files, text, images, marked, _) => [files, text, images, marked, window.kosmosg.cursor()]"
)


def connect_prompt(page: Page, studio: Studio) -> None:
    """Connect the prompt and its images."""
    prompt, marked = page.inputs["prompt"], page.marked
    edited = [prompt, page.images, marked, page.earlier, page.later, page.replace, page.remove]
    edited += [page.errors["prompt"], page.hint]
    seen = [prompt, page.images, marked]

    def result(text: str, images: Sequence[Path], chosen: int) -> list[Any]:
        some, one = bool(images), 0 <= chosen < len(images)
        gallery = gr.update(
            value=[(str(image), str(n)) for n, image in enumerate(images, 1)],
            visible=some,
            selected_index=chosen if one else None,
        )
        buttons = [gr.update(visible=some, interactive=one)] * 4
        return [text, gallery, chosen, *buttons, gr.update(visible=False), _hint(text, images)]

    def add(files: Any, text: str, gallery: Any, _: int, cursor: float, request: gr.Request) -> Any:
        images = paths(gallery)
        try:
            new = _accept(files, studio, str(request.session_hash))
        except KosmosGError as error:
            return [*result(text, images, -1)[:-2], *_told(error, text, images)]
        text, images = prompt_editor.insert(text or "", images, int(cursor), new)
        return result(text, images, len(images) - 1 if len(new) == 1 else -1)

    def change(file: Any, text: str, gallery: Any, chosen: int, request: gr.Request) -> Any:
        images = paths(gallery)
        try:
            (new,) = _accept([file], studio, str(request.session_hash))
        except KosmosGError as error:
            return [*result(text, images, chosen)[:-2], *_told(error, text, images)]
        return result(text, prompt_editor.replace(images, chosen, new), chosen)

    def remove(text: str, gallery: Any, chosen: int) -> Any:
        text, images = prompt_editor.remove(text, paths(gallery), chosen)
        return result(text, images, -1)

    def move(by: int) -> Any:
        def moved(text: str, gallery: Any, chosen: int) -> Any:
            return result(text, *prompt_editor.move(paths(gallery), chosen, by))

        return moved

    def choose(text: str, gallery: Any, event: gr.SelectData) -> Any:
        return result(text, paths(gallery), event.index)[2:]

    page.add.upload(add, [page.add, *seen, page.cursor], edited, js=WITH_CURSOR, **AT_ONCE)
    page.replace.upload(change, [page.replace, *seen], edited, **AT_ONCE)
    page.remove.click(remove, seen, edited, **AT_ONCE)
    page.earlier.click(move(-1), seen, edited, **AT_ONCE)
    page.later.click(move(1), seen, edited, **AT_ONCE)
    page.images.select(choose, [prompt, page.images], edited[2:], **AT_ONCE)
    page.use.click(
        lambda drawn, n, text, images, _: add_drawn(drawn, n, text, images),
        [page.drawn, page.chosen, *seen],
        edited,
        **AT_ONCE,
    )
    prompt.change(
        lambda text, gallery: _hint(text, paths(gallery)),
        [prompt, page.images],
        page.hint,
        trigger_mode="always_last",
        **AT_ONCE,
    )

    def add_drawn(drawn: Any, chosen: int, text: str, gallery: Any) -> Any:
        new = [drawn.files[chosen]]
        return result(*prompt_editor.insert(text or "", paths(gallery), len(text or ""), new), -1)

    def fill(inputs: dict[str, Any]) -> Any:
        def filled() -> list[Any]:
            images = [image for _, image in form.list_images(inputs)]
            values = form.settings(inputs)
            parts = [
                str(value) if isinstance(value, Path) else value
                for value in (values[name] for name in page.inputs if name != "prompt")
            ]
            return [*result(values["prompt"], images, -1), *parts, _painted(values)]

        return filled

    others = [part for name, part in page.inputs.items() if name != "prompt"]
    for button, inputs in zip(page.examples, page.filled, strict=True):
        button.click(fill(inputs), None, [*edited, *others, page.init], **AT_ONCE)


def paths(gallery: Any) -> list[Path]:
    """The files of a gallery."""
    return [Path(file) for file, _ in gallery or []]


def _accept(files: Any, studio: Studio, session: str) -> list[Path]:
    """Take images that were uploaded; what no browser shows gets a copy that it does.

    Raises:
        ImageError: If one is none.
    """
    accepted = []
    for file in map(Path, files if isinstance(files, list) else [files]):
        studio.sessions.note(session, [file])
        image = open_image(file, file.name, keep_alpha=True)
        if file.suffix.lower() not in SHOWN_BY_BROWSERS:
            shown = studio.sessions.folder(session) / f"{file.stem}.png"
            image.save(shown)
            file = shown
        accepted.append(file)
    return accepted


def _told(error: KosmosGError, text: str, images: Sequence[Path]) -> list[Any]:
    told = gr.update(value=show.error(str(error)), visible=True)
    return [told, _hint(text, images)]


def _hint(text: str, images: Sequence[Path]) -> Any:
    """Say while a prompt is written whether its markers and images fit."""
    told = prompt_editor.describe(text or "", images)
    return gr.update(value=escape(told), visible=bool(told))


def _painted(values: dict[str, Any]) -> dict[str, Any] | None:
    """Open initial image and mask as the editor shows them: paint where the mask is white."""
    if values["init_image"] is None:
        return None
    image = open_image(values["init_image"], "init_image").convert("RGBA")
    layers = []
    if values["init_mask"] is not None:
        mask = open_image(values["init_mask"], "init_mask").convert("L").resize(image.size)
        paint = Image.new("RGBA", image.size, "#e11d48")
        paint.putalpha(Image.fromarray(np.where(np.asarray(mask) >= 128, 255, 0).astype(np.uint8)))
        layers = [paint]
    return {"background": image, "layers": layers, "composite": None}

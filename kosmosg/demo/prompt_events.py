"""What happens in the prompt: images come, go and change places."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from kosmosg.demo import prompt_editor, show
from kosmosg.demo.drawing import Studio
from kosmosg.demo.layout import Page
from kosmosg.errors import ImageError, KosmosGError
from kosmosg.prompts.images import open_image

PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # no interface for programs
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", **PRIVATE}
SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp")
# The cursor is known in the browser alone.
WITH_CURSOR = (
    "(files, text, images, marked, _) => [files, text, images, marked, window.kosmosg.cursor()]"
)
WITH_FOLDER = "(text, images, marked, _) => [text, images, marked, window.kosmosg.folder]"


def connect_prompt(page: Page, studio: Studio) -> None:
    """Connect the prompt and its images."""
    prompt, seen, edited = page.inputs["prompt"], _seen(page), edits(page)
    _connect_uploads(page, studio)
    _connect_gallery(page)
    page.use.click(_add_drawn, [page.drawn, page.chosen, *seen], edited, **AT_ONCE)
    prompt.change(
        lambda text, gallery: _hint(text, paths(gallery)),
        [prompt, page.images],
        page.hint,
        trigger_mode="always_last",
        **AT_ONCE,
    )


def edits(page: Page) -> list[Any]:
    """The components that ``edited`` has values for."""
    buttons = [page.earlier, page.later, page.replace, page.remove]
    said = [page.errors["prompt"], page.hint]
    return [page.inputs["prompt"], page.images, page.marked, *buttons, *said]


def edited(text: str, images: Sequence[Path], chosen: int) -> list[Any]:
    """Show a prompt and its images after a change.

    Args:
        text: The prompt.
        images: Its images.
        chosen: Which of them is chosen; -1 is none.

    Returns:
        A value for each of ``edits``.
    """
    some, one = bool(images), 0 <= chosen < len(images)
    gallery = gr.update(
        value=[(str(image), str(n)) for n, image in enumerate(images, 1)],
        visible=some,
        selected_index=chosen if one else None,
    )
    buttons = [gr.update(visible=some, interactive=one)] * 4
    return [text, gallery, chosen, *buttons, gr.update(visible=False), _hint(text, images)]


def _seen(page: Page) -> list[Any]:
    return [page.inputs["prompt"], page.images, page.marked]


def _connect_uploads(page: Page, studio: Studio) -> None:
    """Connect the files that come in: new images, one for another, and folders, which are none."""

    def add(files: Any, text: str, gallery: Any, _: int, cursor: float, request: gr.Request) -> Any:
        images = paths(gallery)
        try:
            new = _accept(files, studio, str(request.session_hash))
        except KosmosGError as error:
            return _refused(error, text, images, -1)
        text, images = prompt_editor.insert(text or "", images, int(cursor), new)
        return edited(text, images, len(images) - 1 if len(new) == 1 else -1)

    def change(file: Any, text: str, gallery: Any, chosen: int, request: gr.Request) -> Any:
        images = paths(gallery)
        try:
            (new,) = _accept([file], studio, str(request.session_hash))
        except KosmosGError as error:
            return _refused(error, text, images, chosen)
        return edited(text, prompt_editor.replace(images, chosen, new), chosen)

    def refuse_folder(text: str, gallery: Any, chosen: int, name: str) -> Any:
        error = ImageError(f"{name} is a folder. Open it and drop the images that are in it.")
        return _refused(error, text, paths(gallery), chosen)

    seen, changes = _seen(page), edits(page)
    page.add.upload(add, [page.add, *seen, page.cursor], changes, js=WITH_CURSOR, **AT_ONCE)
    page.replace.upload(change, [page.replace, *seen], changes, **AT_ONCE)
    page.folder.click(refuse_folder, [*seen, page.folder_name], changes, js=WITH_FOLDER, **AT_ONCE)


def _connect_gallery(page: Page) -> None:
    """Connect what is done with an image that is chosen."""

    def remove(text: str, gallery: Any, chosen: int) -> Any:
        text, images = prompt_editor.remove(text, paths(gallery), chosen)
        return edited(text, images, -1)

    def move(by: int) -> Any:
        def moved(text: str, gallery: Any, chosen: int) -> Any:
            return edited(text, *prompt_editor.move(paths(gallery), chosen, by))

        return moved

    def choose(text: str, gallery: Any, event: gr.SelectData) -> Any:
        return edited(text, paths(gallery), event.index)[2:]

    seen, changes = _seen(page), edits(page)
    page.remove.click(remove, seen, changes, **AT_ONCE)
    page.earlier.click(move(-1), seen, changes, **AT_ONCE)
    page.later.click(move(1), seen, changes, **AT_ONCE)
    page.images.select(choose, seen[:2], changes[2:], **AT_ONCE)


def _add_drawn(drawn: Any, chosen: int, text: str, gallery: Any, _: int) -> Any:
    """Use an image that was drawn as the last one of the prompt."""
    new = [drawn.files[chosen]]
    return edited(*prompt_editor.insert(text or "", paths(gallery), len(text or ""), new), -1)


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


def _refused(error: KosmosGError, text: str, images: Sequence[Path], chosen: int) -> list[Any]:
    """Say what is wrong with what came, and leave prompt and images as they are."""
    told = gr.update(value=show.error(str(error)), visible=True)
    return [*edited(text, images, chosen)[:-2], told, _hint(text, images)]


def _hint(text: str, images: Sequence[Path]) -> Any:
    """Say while a prompt is written whether its markers and images fit."""
    told = prompt_editor.describe(text or "", images)
    return gr.update(value=escape(told), visible=bool(told))

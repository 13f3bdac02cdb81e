"""What happens when something on the page is pressed: drawing, mixing, and what can be done after.

Functions of gradio take the values of components and return, or yield, what becomes of others.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from kosmosg.demo import form, show
from kosmosg.demo.drawing import Studio, Update, failed
from kosmosg.demo.layout import Page
from kosmosg.demo.prompt_events import AT_ONCE, PRIVATE, paths
from kosmosg.errors import KosmosGError
from kosmosg.serving.request_file import write_request

# The studio has a queue of its own, which says the place and loses who is gone.
IN_TURN: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", **PRIVATE}
MIXED = (
    *("num_inference_steps", "text_guidance_scale", "guidance_end", "scheduler"),
    *("width", "height", "seed"),
)


def connect_drawing(page: Page, studio: Studio) -> None:
    """Connect what draws, inside of the ``gr.Blocks`` that the page was laid out in."""
    outputs = [
        *(page.progress, page.results, page.slider, page.drawn, page.chosen, page.told),
        *(page.command, page.json, page.request, page.again, page.use),
        *(page.draw, page.cancel, page.mix, page.cancel_mix),
        *page.errors.values(),
        *page.folds.values(),
    ]

    async def draw(data: dict, request: gr.Request) -> AsyncIterator[dict]:
        session, values = str(request.session_hash), _read(page, data)
        yield _begin(page)
        try:
            inputs = studio.read(values, paths(data[page.images]), data[page.init], session)
        except KosmosGError as error:
            yield _show(page, failed(error))
            return
        async for update in studio.draw(inputs, session):
            yield _show(page, update)

    async def mix(data: dict, request: gr.Request) -> AsyncIterator[dict]:
        session, values = str(request.session_hash), _read(page, data)
        values = {name: values[name] for name in MIXED} | {"prompt": data[page.mix_prompt]}
        ends = [Path(data[end]) for end in (page.first, page.second) if data[end]]
        inputs = studio.read(values, [], None, session)
        yield _begin(page)
        async for update in studio.mix(ends, inputs, data[page.frames], session):
            yield _show(page, update, mixing=True)

    def cancel(request: gr.Request) -> None:
        studio.turns.leave(str(request.session_hash))

    def close(request: gr.Request) -> None:
        studio.close(str(request.session_hash))

    read = {*page.inputs.values(), page.images, page.init}
    drawing: dict[str, Any] = {"inputs": read, "outputs": outputs, **IN_TURN}
    page.draw.click(draw, **drawing)
    page.inputs["prompt"].submit(draw, **drawing)
    again = page.again.click(
        lambda drawn, chosen: (drawn.seeds[chosen], 1),
        [page.drawn, page.chosen],
        [page.inputs["seed"], page.inputs["num_images"]],
        **AT_ONCE,
    )
    again.then(draw, **drawing)
    ends = {page.first, page.second, page.mix_prompt, page.frames}
    page.mix.click(mix, inputs=read | ends, outputs=outputs, **IN_TURN)
    for button in (page.cancel, page.cancel_mix):
        button.click(cancel, **AT_ONCE)
    page.blocks.unload(close)


def connect_results(page: Page, studio: Studio) -> None:
    """Connect what can be done with images that are drawn, and with the map of a control image."""

    def choose(event: gr.SelectData) -> int:
        return event.index

    def slide(place: float) -> tuple[Any, int]:
        return gr.update(selected_index=int(place) - 1), int(place) - 1

    async def show_map(data: dict, request: gr.Request) -> dict:
        inputs = form.collect(_read(page, data), [])
        if "control_image" not in inputs:
            return {page.map: None, page.errors["control"]: gr.update(visible=False)}
        session = str(request.session_hash)
        try:
            made = await studio.run(
                lambda turn: studio.generator.control_map(inputs, turn), session
            )
        except KosmosGError as error:
            told = gr.update(value=show.error(str(error)), visible=True)
            return {page.map: None, page.errors["control"]: told}
        file = studio.sessions.folder(session) / "map.png"
        made.save(file)
        return {page.map: str(file), page.errors["control"]: gr.update(visible=False)}

    page.results.select(choose, None, page.chosen, **AT_ONCE)
    page.slider.change(slide, page.slider, [page.results, page.chosen], **AT_ONCE)
    if studio.generator.shows_steps:
        names = ("control_image", "control_type", "control_preprocess")
        gr.on(
            [page.inputs[name].change for name in names],
            show_map,
            inputs={page.inputs[name] for name in (*names, "width", "height")},
            outputs=[page.map, page.errors["control"]],
            trigger_mode="always_last",
            **IN_TURN,
        )


def _read(page: Page, data: dict) -> dict[str, Any]:
    """Take what is filled in, by the names of the server; files as paths."""
    values = {name: data[part] for name, part in page.inputs.items() if part in data}
    for name in ("lora_weights", "control_image"):
        if values.get(name):
            values[name] = Path(values[name])
    return values


def _begin(page: Page) -> dict:
    """Take away what was said of the request before."""
    changed: dict[Any, Any] = {error: gr.update(visible=False) for error in page.errors.values()}
    for start, stop in ((page.draw, page.cancel), (page.mix, page.cancel_mix)):
        changed |= {start: gr.update(interactive=False), stop: gr.update(interactive=True)}
    return changed


def _show(page: Page, update: Update, *, mixing: bool = False) -> dict:
    """Show what has changed."""
    changed: dict[Any, Any] = {page.progress: update.progress}
    if update.over:
        for start, stop in ((page.draw, page.cancel), (page.mix, page.cancel_mix)):
            changed |= {start: gr.update(interactive=True), stop: gr.update(interactive=False)}
    if update.error:
        place, message = update.error
        told = "mix" if mixing and place == "prompt" else place
        changed[page.errors[told]] = gr.update(value=show.error(message), visible=True)
        if place in page.folds:
            changed[page.folds[place]] = gr.update(open=True)
    if drawn := update.drawn:
        captions = [f"seed {seed}" for seed in drawn.seeds]
        shown = [(str(file), caption) for file, caption in zip(drawn.files, captions, strict=True)]
        number, mixed = len(drawn.files), drawn.mixed
        changed |= {
            page.results: gr.update(value=shown, selected_index=0 if mixed else None, visible=True),
            page.slider: gr.update(visible=mixed, maximum=max(number, 2), value=1),
            page.drawn: drawn,
            page.chosen: 0,
            page.again: gr.update(visible=not mixed),
            page.use: gr.update(visible=True),
            page.told: gr.update(visible=not mixed),
            page.request: gr.update(visible=not mixed),
        }
        if not mixed:
            file = drawn.files[0].parent / "request.json"
            write_request(drawn.inputs, file)
            written = json.dumps(form.as_request(drawn.inputs), indent=2, ensure_ascii=False)
            changed |= {page.command: form.as_command(drawn.inputs), page.json: written}
            changed[page.request] = gr.update(value=str(file), visible=True)
    return changed

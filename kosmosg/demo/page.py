"""The page: laid out, connected, and filled with examples."""

import logging
import re
from pathlib import Path
from typing import Any

import gradio as gr

from kosmosg.demo.drawing import Studio
from kosmosg.demo.events import connect_drawing, connect_results
from kosmosg.demo.example_events import connect_examples
from kosmosg.demo.layout import lay_out
from kosmosg.demo.prompt_events import AT_ONCE, connect_prompt
from kosmosg.serving.request_file import read_inputs

logger = logging.getLogger(__name__)

MINUTES = 60
# What a closed tab has left behind all the same: looked for every hour, removed after a day.
DELETE_CACHE = (60 * MINUTES, 24 * 60 * MINUTES)


def make_page(studio: Studio, samples: Path) -> gr.Blocks:
    """Make the page.

    Args:
        studio: What draws.
        samples: Folder of request files, which become examples.
    """
    examples = read_examples(samples)
    mixes = hasattr(studio.generator, "mix")
    with gr.Blocks(title="KOSMOS-G", analytics_enabled=False, delete_cache=DELETE_CACHE) as blocks:
        page = lay_out(studio.generator.title, list(examples), mixes=mixes)
        page.parts |= {"blocks": blocks, "filled": list(examples.values())}
        connect_prompt(page, studio)
        connect_examples(page)
        connect_drawing(page, studio)
        connect_results(page, studio)
        # A number that begins as nothing is shown as 0, which would be sent.
        open_numbers = [page.inputs[name] for name in ("seed", "width", "height")]
        blocks.load(lambda: [None] * len(open_numbers), None, open_numbers, **AT_ONCE)
    for block in blocks.blocks.values():
        _refuse_addresses(block)
    return blocks


def read_examples(samples: Path) -> dict[str, dict[str, Any]]:
    """Read the request files of a folder, by what to call them; what is none is left out."""
    found = {}
    for file in sorted(samples.glob("*.json")):
        try:
            found[file.stem.replace("-", " ")] = read_inputs(file)
        except ValueError as error:
            logger.warning("No example: %s.", error)
    return found


def _refuse_addresses(block: Any) -> None:
    """Take files only as uploads: gradio would fetch what is an address in place of a file."""
    take = block.async_move_resource_to_block_cache

    async def take_file(file: Any) -> str | None:
        if re.match(r"\s*\w+://", str(file or "")):
            raise gr.Error("Send the file itself, not an address of it.", print_exception=False)
        return await take(file)

    block.async_move_resource_to_block_cache = take_file

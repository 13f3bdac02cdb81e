"""A contact sheet as one HTML file, which holds its images and needs no network and no script."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from kosmosg.utils.files import atomic_file

SIDE, QUALITY = 160, 80  # of the images on the sheet, in pixels; of their JPEG


@dataclass(frozen=True, kw_only=True)
class Card:
    """One example.

    Attributes:
        group: Under which heading it stands; cards of a group follow each other.
        inputs: The images that came with the prompt.
        prompt: Its text.
        output: What a model made of it, or was to make.
        scores: Of it, by name.
    """

    group: str
    inputs: Sequence[Image.Image]
    prompt: str
    output: Image.Image
    scores: Mapping[str, float] = field(default_factory=dict)


def write_contact_sheet(file: Path, *, title: str, table: str, cards: Iterable[Card]) -> None:
    """Write the sheet, one card after the other.

    Args:
        file: Where to; it appears whole or not at all.
        title: Of the page.
        table: Shown above the images as it is.
        cards: In their order.

    Raises:
        OSError: If it cannot be written.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["thumbnail"] = _thumbnail
    template = environment.from_string(
        files("kosmosg.utils").joinpath("contact_sheet.html").read_text("utf-8")
    )
    groups = groupby(cards, attrgetter("group"))
    with atomic_file(file) as unfinished:
        page = template.stream(title=title, table=table, groups=groups)
        page.dump(str(unfinished), encoding="utf-8")


def _thumbnail(image: Image.Image) -> str:
    """Shrink an image and write it out as an address that holds it."""
    small = image.convert("RGB")
    small.thumbnail((2 * SIDE, SIDE), Image.Resampling.LANCZOS)
    content = BytesIO()
    small.save(content, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"

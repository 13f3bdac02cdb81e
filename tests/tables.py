"""Tables for tests, with images in them as ``datasets`` keeps them."""

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pyarrow
from datasets import Features, List, Value
from datasets import Image as ImageColumn
from PIL import Image
from pyarrow import parquet

IMAGES = {"image", "input_image", "edited_image", "original_image", "target_image"}


def png(colour: int = 0, side: int = 64) -> bytes:
    """Make an image of one colour."""
    buffer = BytesIO()
    Image.new("RGB", (side, side), (colour % 256, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def embedded(data: bytes | None) -> dict[str, Any]:
    """Write an image as a table holds it."""
    return {"bytes": data, "path": None}


def to_parquet(rows: Sequence[dict[str, Any]], group: int = 10) -> bytes:
    """Write rows as one file with the features that the Hub would show."""
    kinds: dict[str, Any] = {}
    for name, value in rows[0].items():
        if name in IMAGES:
            kinds[name] = ImageColumn()
        elif isinstance(value, list):
            kinds[name] = List(Value("string") if isinstance(value[0], str) else ImageColumn())
        else:
            kinds[name] = Value("string")
    schema = Features(kinds).arrow_schema
    buffer = BytesIO()
    table = pyarrow.Table.from_pylist(list(rows), schema=schema)
    parquet.write_table(table, buffer, row_group_size=group)
    return buffer.getvalue()


def captions(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Make captioned images that are numbered."""
    numbers = range(first, first + count)
    return [{"image": embedded(png(n)), "caption": f"a {n}"} for n in numbers]


def to_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """Write rows as lines of JSON."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()

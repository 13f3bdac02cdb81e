"""Sheets of sample images: rows of pictures, as training goes on."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def side_by_side(*rows: Float[Tensor, "pictures 3 height width"]) -> Image.Image:
    """Lay batches of pictures in [-1, 1] out as rows of one sheet."""
    stacked = [
        np.concatenate([*((row.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()], 2)
        for row in rows
    ]
    return Image.fromarray(np.concatenate(stacked, axis=1).transpose(1, 2, 0))


def sheet_of(rows: Sequence[Sequence[Image.Image]], side: int) -> Image.Image:
    """Lay pictures out as rows, each scaled to a square; rows may differ in length."""
    columns = max(map(len, rows))
    sheet = Image.new("RGB", (columns * side, len(rows) * side), "white")
    for top, row in enumerate(rows):
        for left, picture in enumerate(row):
            sheet.paste(picture.convert("RGB").resize((side, side)), (left * side, top * side))
    return sheet

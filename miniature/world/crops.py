"""Cutting entities out of images, and laying images out on a sheet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from kosmosg.data.entities import square_box
from miniature.world.render import Rendering
from miniature.world.styles import SIDE

MARGIN = 2  # pixels left around a body, as the dilation in the authors' pipeline does
SHEET_ZOOM = 4


@dataclass(frozen=True, kw_only=True)
class EntityCrop:
    """A square around one entity, scaled to the size of an image (paper, Figure 4).

    Attributes:
        box: Left, top, right and bottom in the image, in pixels.
        crop: With its background.
        masked: On white.
    """

    box: tuple[int, int, int, int]
    crop: UInt8[np.ndarray, "64 64 3"]
    masked: UInt8[np.ndarray, "64 64 3"]


def entity_crops(rendering: Rendering, dressed: bool = False) -> tuple[EntityCrop, ...]:
    """Cut every entity out of an image, in the order of the description.

    As in the authors' pipeline, the box around the mask grows to a square around its centre and
    is shifted inside the image.

    Args:
        rendering: Any rendering.
        dressed: Whether an entity keeps what it wears. Without, "a cat wearing a hat" comes with
            the image of a bare cat, and the words alone say what to add.
    """
    pixels = rendering.image if dressed else rendering.undressed
    masks = np.maximum(rendering.masks, rendering.accessory_masks) if dressed else rendering.masks
    return tuple(_cut(pixels, mask) for mask in masks)


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "64 64 3"]], columns: int, captions: Sequence[str] = ()
) -> Image.Image:
    """Lay images out in rows, four times enlarged, with a line of text under each.

    Args:
        images: At least one.
        columns: Images per row.
        captions: One per image, or none at all; cut off where they do not fit.
    """
    cell, line = SIDE * SHEET_ZOOM, 14 if captions else 0
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * cell, rows * (cell + line)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left, top = index % columns * cell, index // columns * (cell + line)
        enlarged = Image.fromarray(image).resize((cell, cell), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left, top))
        if captions:
            draw.text((left + 3, top + cell + 1), captions[index][:42], fill="black")
    return sheet


def _cut(pixels: UInt8[np.ndarray, "64 64 3"], mask: UInt8[np.ndarray, "64 64"]) -> EntityCrop:
    box = square_box(mask > 0, MARGIN)
    whole = Image.fromarray(pixels)
    white = Image.new("RGB", whole.size, "white")
    alone = Image.composite(whole, white, Image.fromarray(mask))
    crop, masked = (
        np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))
        for image in (whole, alone)
    )
    return EntityCrop(box=box, crop=crop, masked=masked)

"""Cutting entities out of images."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kosmosg.data.entities import square_box
from miniature.world.render import Rendering
from miniature.world.styles import SIDE

MARGIN = 4  # pixels left around a body, as the dilation in the authors' pipeline does


@dataclass(frozen=True, kw_only=True)
class EntityCrop:
    """A square around one entity, scaled to the size of an image (paper, Figure 4).

    Attributes:
        box: Left, top, right and bottom in the image, in pixels.
        crop: With its background.
        masked: On white.
    """

    box: tuple[int, int, int, int]
    crop: UInt8[np.ndarray, "128 128 3"]
    masked: UInt8[np.ndarray, "128 128 3"]


def entity_crops(rendering: Rendering) -> tuple[EntityCrop, ...]:
    """Cut every entity out of an image, in the order of the description.

    As in the authors' pipeline, the box around the mask grows to a square around its centre and
    is shifted inside the image. An entity comes without what it wears: "a cat wearing a hat" has
    the image of a bare cat, and the words alone say what to add.
    """
    return tuple(_cut(rendering.undressed, mask) for mask in rendering.masks)


def _cut(pixels: UInt8[np.ndarray, "128 128 3"], mask: UInt8[np.ndarray, "128 128"]) -> EntityCrop:
    box = square_box(mask > 0, MARGIN)
    whole = Image.fromarray(pixels)
    white = Image.new("RGB", whole.size, "white")
    alone = Image.composite(whole, white, Image.fromarray(mask))
    crop, masked = (
        np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))
        for image in (whole, alone)
    )
    return EntityCrop(box=box, crop=crop, masked=masked)

"""From one image to another: conditions in between, for images from the same noise."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def interpolate(
    first: Float[Tensor, "queries dim"], second: Float[Tensor, "queries dim"], frames: int
) -> Float[Tensor, "frames queries dim"]:
    """Mix two conditions, on the straight line from the first to the second, ends included.

    Args:
        first: One of the rows that ``encode_prompt`` returns.
        second: Another.
        frames: How many, at least 2.
    """
    return torch.stack([torch.lerp(first, second, float(x)) for x in torch.linspace(0, 1, frames)])


def lay_side_by_side(images: Sequence[Image.Image], flagged: Sequence[bool]) -> Image.Image:
    """Lay images of one size out in a strip; flagged ones are black."""
    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for place, (image, unsafe) in enumerate(zip(images, flagged, strict=True)):
        if not unsafe:
            strip.paste(image, (place * width, 0))
    return strip

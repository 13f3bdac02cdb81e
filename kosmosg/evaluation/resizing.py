"""How pictures come to the size that a network takes: what published numbers rest on, and better.

FID depends on it. Inception's own preparation looks at four neighbours of every point, however
much smaller the result, so a picture of 512 × 512 loses detail to aliasing that one of 256 × 256
does not; Pillow's filters cover all pixels that fall into a point (Parmar et al., "On Aliased
Resizing and Surprising Subtleties in GAN Evaluation", arXiv 2104.11222).
"""

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor


def smooth(image: Image.Image, side: int) -> Float32[np.ndarray, "3 side side"]:
    """Scale to a square with Pillow's bicubic filter, each channel in floating point.

    Returns:
        Values from 0 to 255, not rounded.
    """
    channels = [
        Image.fromarray(np.asarray(channel, dtype=np.float32)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        for channel in image.convert("RGB").split()
    ]
    return np.stack([np.asarray(channel) for channel in channels]).clip(0, 255)


def like_tensorflow(
    pixels: Float[Tensor, "batch channels height width"], side: int
) -> Float[Tensor, "batch channels side side"]:
    """Scale to a square as TensorFlow 1 does, bilinear between four neighbours.

    Point n of the result lies at n · size / side of the picture, so the corners at the top left
    coincide, and those at the bottom right do not.
    """
    for axis in (-2, -1):
        size = pixels.shape[axis]
        # In float32, like there: at some sizes a point falls onto a pixel that way, or just not.
        places = torch.arange(side, device=pixels.device, dtype=torch.float32) * (size / side)
        lower = places.long().clamp(max=size - 1)
        upper = (lower + 1).clamp(max=size - 1)
        weight = (places - lower).to(pixels.dtype)
        weight = weight[:, None] if axis == -2 else weight
        below, above = pixels.index_select(axis, lower), pixels.index_select(axis, upper)
        pixels = below + (above - below) * weight
    return pixels


def central_square(image: Image.Image) -> Image.Image:
    """Cut out the largest square in the middle."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))

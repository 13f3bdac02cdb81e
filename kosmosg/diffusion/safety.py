"""The safety checker of Stable Diffusion, asked about finished images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image


def find_unsafe(images: Sequence[Image.Image], checker: Any, processor: Any) -> list[bool]:
    """Tell which images the checker takes for unsafe.

    Args:
        images: Finished ones.
        checker: diffusers' ``StableDiffusionSafetyChecker``, or ``None``, which flags nothing.
        processor: Prepares images for it: transformers' ``CLIPImageProcessor``.
    """
    if checker is None or not images:
        return [False] * len(images)
    pixels = processor(list(images), return_tensors="pt").pixel_values
    # The checker blackens what it flags; it gets blanks, since only its verdict is wanted.
    blanks = np.zeros((len(images), 1, 1, 3), dtype=np.float32)
    with torch.no_grad():
        _, flags = checker(images=blanks, clip_input=pixels.to(checker.device, checker.dtype))
    return [bool(flag) for flag in flags]

"""What tests generate and compare."""

from typing import Any

import numpy as np
from PIL import Image

from kosmosg import KosmosGPipeline


def noise_image(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    """Make an image without structure, of which every pixel matters."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def generate(pipe: KosmosGPipeline, prompt: str = "a cat", **options: Any) -> Image.Image:
    """Generate one image in few steps."""
    settings: dict[str, Any] = {"num_inference_steps": 4, "seed": 5} | options
    return pipe(prompt, **settings).images[0]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two images, in levels of 255."""
    return int(np.abs(pixels(one) - pixels(other)).max())

"""An image with paint on it ↔ the image, and a mask that is white there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kosmosg.prompts.images import open_image

PAINTED = 128  # from here on, of 255, paint is no soft edge
PAINT = "#e11d48"


def split(painted: Mapping[str, Any] | None, folder: Path) -> dict[str, Path]:
    """Find image and mask as the server takes them.

    Args:
        painted: Files of the editor: ``background``, which may be missing, and ``layers``.
        folder: Where to write the mask.

    Returns:
        ``init_image`` and ``init_mask``, as far as there is one.

    Raises:
        ImageError: If one cannot be opened.
    """
    if not painted:
        return {}
    found: dict[str, Path] = {}
    background = painted.get("background")
    # Where nothing was opened, the editor has a background all the same: a white canvas.
    if background and not _blank(background):
        found["init_image"] = Path(background)
    layers = [_opacity(layer, "init_mask") for layer in painted.get("layers") or []]
    layers = [layer for layer in layers if layer.max() >= PAINTED]
    if layers:
        mask = np.zeros_like(layers[0])
        for layer in layers:
            if layer.shape == mask.shape:
                mask = np.maximum(mask, layer)
        found["init_mask"] = folder / "init-mask.png"
        _all_or_nothing(mask).save(found["init_mask"])
    return found


def join(image: Path, mask: Path | None) -> dict[str, Any]:
    """Make what the editor shows: paint where the mask is white.

    Args:
        image: The initial image.
        mask: Its mask, which is stretched to its size.

    Returns:
        Value of the editor.

    Raises:
        ImageError: If one cannot be opened.
    """
    background = open_image(image, "init_image").convert("RGBA")
    layers = []
    if mask is not None:
        white = open_image(mask, "init_mask").convert("L").resize(background.size)
        layers = [Image.new("RGBA", background.size, PAINT)]
        layers[0].putalpha(_all_or_nothing(np.asarray(white)))
    return {"background": background, "layers": layers, "composite": None}


def _all_or_nothing(values: np.ndarray) -> Image.Image:
    """Make an image of 255 where there is paint, and of 0 elsewhere."""
    return Image.fromarray(np.where(values >= PAINTED, 255, 0).astype(np.uint8))


def _blank(file: Path) -> bool:
    """Tell whether an image is nothing but white."""
    return bool(np.asarray(open_image(file, "init_image")).min() == 255)


def _opacity(file: Path, name: str) -> np.ndarray:
    """How opaque each pixel is, 0 to 255."""
    return np.asarray(open_image(file, name, keep_alpha=True).convert("RGBA"))[..., 3]

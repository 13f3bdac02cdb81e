"""What was painted on an image → the image, and a mask that is white there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def split(painted: Mapping[str, Any] | None, folder: Path) -> dict[str, Path]:
    """Write image and mask as the server takes them.

    Args:
        painted: ``background`` and ``layers`` of the editor, RGBA or ``None``.
        folder: Where to write the two files.

    Returns:
        ``init_image`` and ``init_mask``, as far as there is one.
    """
    if not painted:
        return {}
    found: dict[str, Path] = {}
    image = painted.get("background")
    # The editor has a background also when nothing was opened: fully transparent, or all white.
    if image is not None and not _blank(image):
        found["init_image"] = folder / "init.png"
        image.save(found["init_image"])
    alphas = [np.asarray(layer.convert("RGBA"))[..., 3] for layer in painted.get("layers") or []]
    if any(alpha.any() for alpha in alphas):
        mask = np.max(alphas, axis=0)
        found["init_mask"] = folder / "init-mask.png"
        Image.fromarray(np.where(mask >= 128, 255, 0).astype(np.uint8)).save(found["init_mask"])
    return found


def _blank(image: Image.Image) -> bool:
    return image.mode == "RGBA" and not np.asarray(image)[..., 3].any()

"""Pictures → the maps that ControlNets read: edges, depth, poses, …"""

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from kosmosg.errors import ControlError

CANNY_THRESHOLDS = (100, 200)  # as in the authors' demo


def make_map(kind: str, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Derive a control map.

    Args:
        kind: One of ``config.CONTROL_TYPES``.
        image: RGB picture.
        size: Width and height in pixels of the map.

    Raises:
        ControlError: If the map cannot be made here.
    """
    make = MAKERS.get(kind)
    if make is None:
        raise ControlError(
            f"Control maps of kind '{kind}' cannot be made here. Send the map itself, with "
            "control_preprocess=false."
        )
    return make(image.resize(size, Image.Resampling.LANCZOS))


def canny(image: Image.Image) -> Image.Image:
    """Draw the edges white on black."""
    edges = cv2.Canny(np.asarray(image), *CANNY_THRESHOLDS)
    return Image.fromarray(edges).convert("RGB")


def same(image: Image.Image) -> Image.Image:
    """Take the picture as it is: InstructPix2Pix's network reads the picture itself."""
    return image


MAKERS: dict[str, Callable[[Image.Image], Image.Image]] = {"canny": canny, "ip2p": same}

"""The square that is cut out around an entity."""

import numpy as np
from jaxtyping import Bool


def square_box(
    mask: Bool[np.ndarray, "height width"], margin: int = 0
) -> tuple[int, int, int, int]:
    """Find the smallest square with a margin around a mask that lies inside the picture.

    The box around the mask grows to a square around its centre and is shifted inside (facts
    sheet, section 13); no square is larger than the shorter side of the picture.

    Args:
        mask: True somewhere.
        margin: Pixels to leave free on each side.

    Returns:
        Left, top, right and bottom in pixels; right and bottom are exclusive.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    side = min(max(height, width) + 2 * margin, *mask.shape)
    top = int(np.clip((rows[0] + rows[-1] + 1 - side) // 2, 0, mask.shape[0] - side))
    left = int(np.clip((columns[0] + columns[-1] + 1 - side) // 2, 0, mask.shape[1] - side))
    return left, top, left + int(side), top + int(side)

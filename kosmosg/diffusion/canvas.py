"""The size of the images, when others fix their layout."""

from collections.abc import Mapping

from PIL import Image

from kosmosg.diffusion.settings import MAX_SIDE, check_side
from kosmosg.errors import SettingError

MAX_ASPECT = 8  # beyond it the shorter side has too few latents to hold anything


def choose_size(
    width: int | None,
    height: int | None,
    *,
    default: int,
    multiple: int,
    guides: Mapping[str, Image.Image],
    largest: int = MAX_SIDE,
) -> tuple[int, int]:
    """Choose width and height in pixels.

    A side that is not given is ``default``, unless an image fixes the layout: then the image's
    proportions are kept, with ``default`` as the longer side if neither is given.

    Args:
        width: What was asked for, or ``None``.
        height: Likewise.
        default: The side that the decoder was trained at.
        multiple: What both sides are a multiple of.
        guides: Control and initial images, by what to call them in errors.
        largest: Bound of both sides, also of one that a guide gives.

    Raises:
        SettingError: If sides are out of bounds, or do not have a guide's proportions.
    """
    width = None if width is None else check_side("width", width, multiple, largest)
    height = None if height is None else check_side("height", height, multiple, largest)
    for name, guide in guides.items():
        short, long = sorted(guide.size)
        if long > MAX_ASPECT * short:
            raise SettingError(
                f"{name} has {guide.width} × {guide.height} pixels: one side is more than "
                f"{MAX_ASPECT} times the other. Cut it closer to a square."
            )
        wanted = _fit(guide, width, height, default, multiple)
        if width is None and height is None:
            width, height = wanted
        width, height = width or wanted[0], height or wanted[1]
        if max(width, height) > largest:
            raise SettingError(
                f"{name} has {guide.width} × {guide.height} pixels. In its proportions the result "
                f"would have {width} × {height}, and a side may have {largest} at most. Ask for "
                "a smaller width or height."
            )
        if abs(width - wanted[0]) > multiple or abs(height - wanted[1]) > multiple:
            raise SettingError(
                f"{name} has {guide.width} × {guide.height} pixels, which does not fit images of "
                f"{width} × {height}. Give sides of one proportion, such as {wanted[0]} × "
                f"{wanted[1]}, or cut it to shape."
            )
    return width or default, height or default


def _fit(
    guide: Image.Image, width: int | None, height: int | None, default: int, multiple: int
) -> tuple[int, int]:
    """Find the sides closest to an image's proportions, with those that are given kept."""

    def near(side: float) -> int:
        return max(multiple, round(side / multiple) * multiple)

    ratio = guide.width / guide.height
    if height is None and width is not None:
        return width, near(width / ratio)
    if height is not None and width is None:
        return near(height * ratio), height
    longer = default if width is None or height is None else max(width, height)
    if ratio >= 1:
        return near(longer), near(longer / ratio)
    return near(longer * ratio), near(longer)

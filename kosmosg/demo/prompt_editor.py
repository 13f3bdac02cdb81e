"""A prompt and its images: both change together, so that every image keeps its marker."""

from collections.abc import Sequence
from pathlib import Path

from kosmosg.errors import PromptError
from kosmosg.prompts.prompt import MARKER, parse_prompt

Edited = tuple[str, list[Path]]


def insert(text: str, images: Sequence[Path], cursor: int, new: Sequence[Path]) -> Edited:
    """Put images where the cursor is.

    Args:
        text: The prompt.
        images: Its images, in the order of the markers.
        cursor: Characters before it; one inside a marker goes behind it.
        new: What to put there.

    Returns:
        Prompt and images.
    """
    cursor = max(0, min(cursor, len(text)))
    for start in range(max(0, cursor - len(MARKER) + 1), cursor):
        if text.startswith(MARKER, start):
            cursor = start + len(MARKER)
    before, after = text[:cursor], text[cursor:]
    marks = " ".join([MARKER] * len(new))
    left = "" if not before or before[-1].isspace() else " "
    right = "" if not after or after[0].isspace() or after[0] in ".,;:!?)" else " "
    place = before.count(MARKER)
    kept = list(images)
    return f"{before}{left}{marks}{right}{after}", [*kept[:place], *new, *kept[place:]]


def remove(text: str, images: Sequence[Path], index: int) -> Edited:
    """Take an image out, and its marker."""
    parts = text.split(MARKER)
    if index + 1 < len(parts):
        left, right = parts[index], parts[index + 1]
        if left.endswith(" ") or not left:
            right = right.removeprefix(" ")
        parts[index : index + 2] = [left + right]
    return MARKER.join(parts), [*images[:index], *images[index + 1 :]]


def move(images: Sequence[Path], index: int, by: int) -> tuple[list[Path], int]:
    """Let an image change places with its neighbour; the markers are all alike.

    Returns:
        The images, and where the image is now.
    """
    moved, target = list(images), index + by
    if not (0 <= index < len(moved) and 0 <= target < len(moved)):
        return moved, index
    moved[index], moved[target] = moved[target], moved[index]
    return moved, target


def replace(images: Sequence[Path], index: int, new: Path) -> list[Path]:
    """Put another image in the place of one."""
    return [new if n == index else image for n, image in enumerate(images)]


def describe(text: str, images: Sequence[Path]) -> str:
    """Say what is wrong with the number of markers, in the words of the model; else nothing."""
    try:
        parse_prompt(text, len(images))
    except PromptError as error:
        return str(error)
    return ""

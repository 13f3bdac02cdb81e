"""What the page says while and after it draws, as HTML."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image

from kosmosg.demo.turns import Turn

PREVIEW_SIDE = 128  # pixels


def progress(turn: Turn, place: int, *, steps: bool) -> str:
    """Show where a request is: in the queue, or at which step.

    Args:
        turn: The request.
        place: How many are before it.
        steps: Whether steps are told of.
    """
    done, total = turn.done
    if place:
        before = "1 request is" if place == 1 else f"{place} requests are"
        return status(f"In the queue: {before} before yours.", bar=(None, None))
    if not steps:
        return status("The container draws. It does not tell of its steps.", bar=(None, None))
    if not total:
        return status("Reading prompt and images …", bar=(None, None))
    text = f"Step {done} of {total}" if done < total else "Decoding the images …"
    return status(text, bar=(done, total), previews=turn.previews)


def status(
    text: str,
    *,
    bar: tuple[int | None, int | None] | None = None,
    previews: Sequence[Image.Image] = (),
) -> str:
    """Write a line that is read out when it changes, with a bar and small images below it."""
    parts = [f'<span role="status">{escape(text)}</span>']
    if bar:
        value = "" if bar[0] is None else f' value="{bar[0]}" max="{bar[1]}"'
        parts.append(f'<progress aria-label="Progress"{value}></progress>')
    if previews:
        images = "".join(f'<img alt="" src="{_data_url(image)}">' for image in previews)
        parts.append(f'<div class="previews">{images}</div>')
    return f'<div class="progress">{"".join(parts)}</div>'


def error(text: str) -> str:
    """Write an error, which is read out at once."""
    return f'<div class="error" role="alert">{escape(text)}</div>'


def _data_url(image: Image.Image) -> str:
    side = PREVIEW_SIDE / max(image.size)
    size = (max(1, round(image.width * side)), max(1, round(image.height * side)))
    file = BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

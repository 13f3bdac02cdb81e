"""A contact sheet as one HTML file, which holds its pictures and needs no network and no script."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from io import BytesIO

from PIL import Image

SIDE, QUALITY = 160, 80  # of the pictures on the sheet, in pixels; of their JPEG
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }
pre { overflow-x: auto; background: #f5f5f5; padding: 1rem; font-size: 12px; }
h2 { margin-top: 2rem; font-size: 16px; }
main { display: flex; flex-wrap: wrap; gap: 16px; }
figure { margin: 0; max-width: 340px; }
figure img { height: 160px; border-radius: 4px; }
figcaption { font-size: 12px; overflow-wrap: anywhere; }
figcaption span { color: #777; }
"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One example.

    Attributes:
        group: Under which heading it stands; cards of a group follow each other.
        inputs: The pictures that came with the prompt.
        prompt: Its text.
        output: What was drawn.
        scores: Of it, by name.
    """

    group: str
    inputs: Sequence[Image.Image]
    prompt: str
    output: Image.Image
    scores: Mapping[str, float] = field(default_factory=dict)


def make_html(title: str, table: str, cards: Iterable[Card]) -> str:
    """Write the sheet.

    Args:
        title: Of the page.
        table: Shown above the pictures as it is.
        cards: In their order.
    """
    parts: list[str] = []
    group = None
    for card in cards:
        if card.group != group:
            parts += ["</main>" if parts else "", f"<h2>{escape(card.group)}</h2>", "<main>"]
            group = card.group
        parts.append(_figure(card))
    body = "\n".join([*parts, "</main>" if parts else ""])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<pre>{escape(table)}</pre>\n{body}\n</body>\n</html>\n"
    )


def _figure(card: Card) -> str:
    images = "".join(map(_image, (*card.inputs, card.output)))
    scores = ", ".join(f"{name} {value:.3f}" for name, value in card.scores.items())
    scores = f"<br><span>{escape(scores)}</span>" if scores else ""
    return f"<figure>{images}<figcaption>{escape(card.prompt)}{scores}</figcaption></figure>"


def _image(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((2 * SIDE, SIDE), Image.Resampling.LANCZOS)
    file = BytesIO()
    small.save(file, format="JPEG", quality=QUALITY)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'

"""Contact sheets: input pictures, prompt, and what was drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE = 128  # of a picture on a sheet, in pixels
GAP, FRAME, FONT_SIZE, LINE, LINES = 10, 4, 13, 16, 3
INK, PALE, RIGHT, WRONG, NEUTRAL = "#222222", "#8a8a8a", "#2e9e4f", "#d33a3a", "#c4c4c4"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One example.

    Attributes:
        inputs: The pictures that came with the prompt.
        prompt: Its text.
        output: What was drawn.
        right: Whether it is what was asked for; nothing if nobody judged.
    """

    inputs: Sequence[Image.Image]
    prompt: str
    output: Image.Image
    right: bool | None = None


def lay_out(cells: Sequence[Cell], columns: int, titles: Sequence[str] = ()) -> Image.Image:
    """Lay examples out in rows.

    Args:
        cells: At least one.
        columns: Examples per row.
        titles: A line of text above each row, or none at all.
    """
    inputs = max(len(cell.inputs) for cell in cells)
    width, height = _cell_size(inputs)
    head = LINE + GAP if titles else 0
    rows = -(-len(cells) // columns)
    size = (columns * (width + GAP) + GAP, rows * (height + GAP + head) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE + 2)
    for row, title in enumerate(titles):
        draw.text((GAP, GAP + row * (height + GAP + head)), title, fill=INK, font=font)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        left = GAP + column * (width + GAP)
        sheet.paste(_draw_cell(cell, inputs), (left, GAP + head + row * (height + GAP + head)))
    return sheet


def _cell_size(inputs: int) -> tuple[int, int]:
    pictures = (inputs + 1) * SIDE + inputs * GAP + 2 * FRAME
    return pictures, SIDE + 2 * FRAME + LINES * LINE


def _draw_cell(cell: Cell, inputs: int) -> Image.Image:
    """Draw inputs to the left of a framed output, and the prompt below."""
    width, height = _cell_size(inputs)
    image = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE)
    for number, picture in enumerate(cell.inputs):
        image.paste(_enlarge(picture), (number * (SIDE + GAP), FRAME))
    left = width - SIDE - 2 * FRAME
    colour = NEUTRAL if cell.right is None else RIGHT if cell.right else WRONG
    draw.rectangle((left, 0, width - 1, SIDE + 2 * FRAME - 1), fill=colour)
    image.paste(_enlarge(cell.output), (left + FRAME, FRAME))
    for number, line in enumerate(wrap(cell.prompt, width, font)[:LINES]):
        draw.text((0, SIDE + 2 * FRAME + number * LINE), line, fill=INK, font=font)
    return image


def wrap(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Break a text between words, into lines that are not wider than some pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _enlarge(picture: Image.Image) -> Image.Image:
    """Scale a picture without smoothing, so that what the model drew is what one sees."""
    return picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)

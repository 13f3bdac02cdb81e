"""Contact sheets: input images, prompt, and what was drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE = 128  # of an image on a sheet, in pixels
GAP, BETWEEN, FRAME, FONT_SIZE, LINE = 10, 24, 4, 13, 16  # BETWEEN columns
INK, RIGHT, WRONG, NEUTRAL = "#222222", "#2e9e4f", "#d33a3a", "#c4c4c4"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One example.

    Attributes:
        inputs: The images that came with the prompt.
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
    font = ImageFont.load_default(FONT_SIZE)
    width = 2 * FRAME + SIDE + max(1, *(len(cell.inputs) for cell in cells)) * (SIDE + GAP)
    texts = [wrap(cell.prompt, width, font) for cell in cells]
    height = SIDE + 2 * FRAME + LINE * max(map(len, texts))
    head = LINE + GAP if titles else 0
    rows = -(-len(cells) // columns)
    size = (columns * (width + BETWEEN) - BETWEEN + 2 * GAP, rows * (height + GAP + head) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw, title_font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE + 2)
    for row, title in enumerate(titles):
        draw.text((GAP, GAP + row * (height + GAP + head)), title, fill=INK, font=title_font)
    for number, (cell, lines) in enumerate(zip(cells, texts, strict=True)):
        row, column = divmod(number, columns)
        left, top = GAP + column * (width + BETWEEN), GAP + head + row * (height + GAP + head)
        _draw_images(sheet, cell, left, top)
        for line, text in enumerate(lines):
            place = (left, top + SIDE + 2 * FRAME + line * LINE)
            draw.text(place, text, fill=INK, font=font)
    return sheet


def wrap(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Break a text between words, into lines that are not wider than some pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _draw_images(sheet: Image.Image, cell: Cell, left: int, top: int) -> None:
    """Put the inputs side by side, and the framed output behind them."""
    for image in cell.inputs:
        sheet.paste(_enlarge(image), (left, top + FRAME))
        left += SIDE + GAP
    colour = NEUTRAL if cell.right is None else RIGHT if cell.right else WRONG
    frame = (left, top, left + SIDE + 2 * FRAME - 1, top + SIDE + 2 * FRAME - 1)
    ImageDraw.Draw(sheet).rectangle(frame, fill=colour)
    sheet.paste(_enlarge(cell.output), (left + FRAME, top + FRAME))


def _enlarge(image: Image.Image) -> Image.Image:
    """Scale an image without smoothing, so that what the model drew is what one sees."""
    return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)

"""Drawing a figure: its body with a texture, and what it wears."""

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from miniature.world.description import Entity
from miniature.world.shapes import Points, Pose, Shape, box, ellipse, shape

Colour = tuple[int, int, int]

# The body, and the marks of its texture and its outline: light hues are marked darkly and dark
# ones lightly, so that stripes and dots are plain to see on all of them.
BODY: dict[str, Colour] = {
    "red": (222, 44, 48),
    "orange": (250, 136, 24),
    "yellow": (253, 216, 46),
    "green": (62, 176, 62),
    "cyan": (64, 212, 220),
    "blue": (40, 88, 224),
    "purple": (134, 56, 196),
    "pink": (252, 140, 196),
}
MARKS: dict[str, Colour] = {
    "red": (255, 222, 214),
    "orange": (255, 240, 208),
    "yellow": (196, 116, 0),
    "green": (222, 250, 190),
    "cyan": (0, 108, 136),
    "blue": (206, 226, 255),
    "purple": (236, 212, 255),
    "pink": (186, 24, 112),
}
DARK, LIGHT, WARM = (46, 36, 44), (255, 252, 244), (255, 196, 60)
WOOL, RIBBON, GOLD = (128, 28, 72), (226, 62, 62), (255, 206, 48)
TONES: dict[str, Colour] = {"dark": DARK, "light": LIGHT, "warm": WARM}

STRIPE_PERIOD = 0.56  # in a figure's frame, where a body is two wide
DOT_SPACING = 0.56
DOT_RADIUS = 0.17
OUTLINE_WIDTH = 5  # canvas units


def draw_shadow(canvas: Image.Image, pose: Pose, bottom: float, darkness: int) -> None:
    """Darken the ground under a figure, between 0 (not at all) and 255 (black)."""
    mask = Image.new("L", canvas.size, 0)
    width, height = pose.radius * 0.85, pose.radius * 0.2
    frame = (pose.x - width, bottom - height, pose.x + width, bottom + height)
    ImageDraw.Draw(mask).ellipse(frame, fill=darkness)
    _paint(canvas, (0, 0, 0), mask)


def draw_body(canvas: Image.Image, entity: Entity, pose: Pose) -> Image.Image:
    """Draw an entity without accessories.

    Args:
        canvas: RGB, drawn on in place.
        entity: What to draw.
        pose: Where.

    Returns:
        The silhouette as an image of mode L: 255 where the body is, else 0.
    """
    form = shape(entity.shape)
    outline = pose.place(form.outline)
    silhouette = Image.new("L", canvas.size, 0)
    ImageDraw.Draw(silhouette).polygon(outline, fill=255)
    draw = ImageDraw.Draw(canvas)
    draw.polygon(outline, fill=BODY[entity.colour])
    if entity.texture != "plain":
        marks = _texture(entity.texture, pose, canvas.size)
        _paint(canvas, MARKS[entity.colour], ImageChops.darker(marks, silhouette))
    edge = _mix(BODY[entity.colour], DARK, 0.6)
    draw.polygon(outline, outline=edge, width=OUTLINE_WIDTH)
    for detail in form.details:
        draw.polygon(pose.place(detail.points), fill=TONES[detail.tone])
    return silhouette


def draw_accessory(canvas: Image.Image, name: str, form: Shape, pose: Pose) -> Image.Image:
    """Dress a figure.

    Args:
        canvas: RGB, drawn on in place.
        name: One of ``ACCESSORIES``, but not ``"none"``.
        form: The shape that wears it.
        pose: Where that shape stands.

    Returns:
        What the accessory covers, as an image of mode L.
    """
    cover = Image.new("L", canvas.size, 0)
    on_canvas, on_cover = ImageDraw.Draw(canvas), ImageDraw.Draw(cover)
    for points, colour in _ACCESSORIES[name](form):
        placed = pose.place(points)
        on_canvas.polygon(placed, fill=colour)
        on_cover.polygon(placed, fill=255)
    return cover


def _paint(canvas: Image.Image, colour: Colour, mask: Image.Image) -> None:
    """Paint through a mask, and touch only the part of the canvas that it opens."""
    if (frame := mask.getbbox()) is not None:
        canvas.paste(colour, frame, mask.crop(frame))


def _texture(name: str, pose: Pose, size: tuple[int, int]) -> Image.Image:
    """Paint the marks over the whole frame; they are fixed to the body and turn with it."""
    marks = Image.new("L", size, 0)
    draw = ImageDraw.Draw(marks)
    if name == "striped":
        half = STRIPE_PERIOD / 4
        for offset in np.arange(-3, 4) * STRIPE_PERIOD:
            corners = np.array([(-1.5, -half), (1.5, -half), (1.5, half), (-1.5, half)])
            slope = np.array([(1.0, -0.35), (0.0, 1.0)])
            draw.polygon(pose.place(corners @ slope + (0.0, offset)), fill=255)
        return marks
    for row in range(-3, 4):
        x = np.arange(-3, 4) * DOT_SPACING + (row % 2) * DOT_SPACING / 2
        y = np.full(7, row * DOT_SPACING * 0.87)
        radius = DOT_RADIUS * pose.radius
        for centre_x, centre_y in pose.place(np.stack([x, y], axis=1)):
            frame = (centre_x - radius, centre_y - radius, centre_x + radius, centre_y + radius)
            draw.ellipse(frame, fill=255)
    return marks


def _hat(form: Shape) -> list[tuple[Points, Colour]]:
    """A top hat: light rim first, so that it stands out against a dark sky."""
    x, y, half = form.head
    crown, brim = half * 0.66, half * 1.05
    return [
        (box(x - crown - 0.07, y - 0.82, x + crown + 0.07, y), LIGHT),
        (box(x - brim - 0.07, y - 0.16, x + brim + 0.07, y + 0.16), LIGHT),
        (box(x - crown, y - 0.75, x + crown, y), DARK),
        (box(x - brim, y - 0.09, x + brim, y + 0.09), DARK),
        (box(x - crown, y - 0.3, x + crown, y - 0.12), RIBBON),
    ]


def _crown(form: Shape) -> list[tuple[Points, Colour]]:
    x, y, half = form.head
    spikes = np.array(
        [(-1, 0.14), (-1.1, -0.62), (-0.5, -0.28), (0, -0.8), (0.5, -0.28), (1.1, -0.62), (1, 0.14)]
    )
    gold = spikes * (half, 0.9) + (x, y)
    rim = spikes * (half + 0.1, 1.12) + (x, y + 0.02)
    jewels = [
        (ellipse(x + half * k, y - 0.04, 0.09, 0.09, 10), (206, 30, 70)) for k in (-0.55, 0.55)
    ]
    return [
        (rim, (116, 70, 0)),
        (gold, GOLD),
        *jewels,
        (ellipse(x, y - 0.08, 0.1, 0.1, 10), (40, 110, 230)),
    ]


def _glasses(form: Shape) -> list[tuple[Points, Colour]]:
    x, y, half = form.face
    radius = half * 0.52
    lenses = [x - half * 0.58, x + half * 0.58]
    return [
        (box(x - half * 0.3, y - 0.07, x + half * 0.3, y + 0.07), DARK),
        *((ellipse(lens, y, radius, radius), DARK) for lens in lenses),
        *((ellipse(lens, y, radius * 0.62, radius * 0.62), (214, 244, 255)) for lens in lenses),
    ]


def _scarf(form: Shape) -> list[tuple[Points, Colour]]:
    """A sagging band with an end that flies to the side, striped across."""
    x, y, half = form.neck
    t = np.linspace(-1, 1, 9)
    sag = np.stack([x + half * t, y - 0.1 * t**2], axis=1)

    def band(wide: float) -> Points:
        ends = (half + wide - 0.16) / half
        middle = (sag - (x, y)) * (ends, 1.0) + (x, y)
        down = np.array((0.0, wide))
        return np.concatenate([middle - down, (middle + down)[::-1]])

    start, stop = np.array((x + half * 0.35, y)), np.array((x + half * 0.75, y + 0.66))
    along = stop - start
    across = np.array((-along[1], along[0])) / np.hypot(*along)

    def end(wide: float, first: float, last: float) -> Points:
        a, b = start + first * along, start + last * along
        return np.array(
            [a - wide * across, b - wide * across, b + wide * across, a + wide * across]
        )

    return [
        (band(0.23), LIGHT),
        (end(0.25, 0.0, 1.09), LIGHT),
        (end(0.18, 0.0, 1.0), WOOL),
        (end(0.18, 0.6, 0.78), LIGHT),
        (band(0.16), WOOL),
    ]


def _mix(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


_ACCESSORIES = {"hat": _hat, "crown": _crown, "glasses": _glasses, "scarf": _scarf}

"""The eight backgrounds. Each is recognised by its colours alone, and varies with chance."""

import numpy as np
from PIL import Image, ImageDraw

CANVAS = 256  # canvas units; the canvas is four times as wide as the image

Colour = tuple[int, int, int]


def draw_scene(name: str, rng: np.random.Generator) -> Image.Image:
    """Paint a background.

    Args:
        name: One of ``SCENES``.
        rng: Source of its variation.

    Returns:
        An RGB canvas of ``CANVAS`` × ``CANVAS``.
    """
    return _PAINTERS[name](rng)


def _sky(top: Colour, bottom: Colour, rng: np.random.Generator) -> Image.Image:
    """A canvas that changes from one colour to another, a little brighter or darker by chance."""
    share = np.linspace(0.0, 1.0, CANVAS)[:, None, None]
    column = np.array(top) * (1 - share) + np.array(bottom) * share
    column = (column + rng.uniform(-8, 8)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(column).resize((CANVAS, CANVAS), Image.Resampling.NEAREST)


def _hills(
    draw: ImageDraw.ImageDraw, y: float, height: float, colour: Colour, rng: np.random.Generator
) -> None:
    """Fill everything below a gentle wave."""
    x = np.linspace(0, CANVAS, 17)
    wave = y + height * np.sin(x / CANVAS * rng.uniform(4, 8) + rng.uniform(0, 2 * np.pi))
    points = [*zip(x.tolist(), wave.tolist(), strict=True), (CANVAS, CANVAS), (0, CANVAS)]
    draw.polygon(points, fill=colour)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _studio(rng: np.random.Generator) -> Image.Image:
    canvas = _sky((246, 244, 240), (232, 228, 222), rng)
    ImageDraw.Draw(canvas).rectangle(
        (0, rng.uniform(168, 184), CANVAS, CANVAS), fill=(220, 214, 206)
    )
    return canvas


def _beach(rng: np.random.Generator) -> Image.Image:
    canvas = _sky((112, 194, 246), (224, 242, 252), rng)
    draw = ImageDraw.Draw(canvas)
    side = rng.choice((-1, 1))
    _disc(draw, 128 + side * rng.uniform(70, 100), rng.uniform(30, 46), 20, (255, 232, 120))
    horizon = rng.uniform(98, 112)
    draw.rectangle((0, horizon, CANVAS, CANVAS), fill=(34, 138, 198))
    for _ in range(4):
        x, y = rng.uniform(0, CANVAS), horizon + rng.uniform(8, 34)
        draw.line((x - 26, y, x + 26, y), fill=(150, 214, 238), width=5)
    _hills(draw, horizon + 48, 6, (252, 250, 240), rng)
    _hills(draw, horizon + 58, 6, (244, 220, 164), rng)
    _palm(draw, 128 - side * rng.uniform(92, 108), horizon + rng.uniform(58, 72))
    return canvas


def _palm(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    draw.line((x, y, x + 6, y - 96), fill=(146, 98, 54), width=11)
    for angle in np.radians((200, 232, 308, 340, 20, 160)):
        tip_x, tip_y = x + 6 + 46 * np.cos(angle), y - 92 + 34 * np.sin(angle)
        draw.line((x + 6, y - 98, tip_x, tip_y), fill=(52, 142, 70), width=13)


def _forest(rng: np.random.Generator) -> Image.Image:
    canvas = _sky((196, 222, 190), (150, 190, 146), rng)
    draw = ImageDraw.Draw(canvas)
    ground = rng.uniform(140, 156)
    for colour, top, count in (((82, 128, 88), 20, 7), ((34, 82, 54), 50, 6)):
        for x in np.linspace(4, 252, count) + rng.uniform(-14, 14, count):
            _pine(draw, x, ground + 8, ground - top - rng.uniform(0, 26), colour)
    draw.rectangle((0, ground, CANVAS, CANVAS), fill=(74, 104, 52))
    for _ in range(9):
        x, y = rng.uniform(0, CANVAS), rng.uniform(ground + 12, CANVAS)
        draw.line((x, y, x + 5, y - 11), fill=(112, 146, 70), width=5)
    return canvas


def _pine(
    draw: ImageDraw.ImageDraw, x: float, bottom: float, height: float, colour: Colour
) -> None:
    draw.rectangle((x - 5, bottom - 22, x + 5, bottom), fill=(84, 58, 40))
    for share, width in ((0.0, 30), (0.28, 25), (0.54, 18)):
        base = bottom - 14 - height * share
        peak = base - height * 0.46
        draw.polygon([(x - width, base), (x, peak), (x + width, base)], fill=colour)


def _snow(rng: np.random.Generator) -> Image.Image:
    canvas = _sky((158, 186, 222), (222, 232, 246), rng)
    draw = ImageDraw.Draw(canvas)
    ground = rng.uniform(134, 150)
    _hills(draw, ground - 22, 14, (206, 220, 240), rng)
    for x in (rng.uniform(8, 50), rng.uniform(206, 248)):
        _pine(draw, x, ground + 10, rng.uniform(78, 104), (70, 112, 118))
        _pine(draw, x, ground - 4, rng.uniform(58, 66), (240, 246, 255))
    _hills(draw, ground, 7, (250, 252, 255), rng)
    for x, y in rng.uniform(0, (CANVAS, 0.6 * CANVAS), (22, 2)):
        _disc(draw, x, y, 4.5, (255, 255, 255))
    return canvas


def _desert(rng: np.random.Generator) -> Image.Image:
    canvas = _sky((250, 166, 96), (255, 230, 176), rng)
    draw = ImageDraw.Draw(canvas)
    _disc(draw, rng.uniform(40, 216), rng.uniform(60, 96), 26, (255, 246, 206))
    ground = rng.uniform(130, 146)
    _hills(draw, ground - 12, 14, (226, 158, 88), rng)
    _cactus(draw, rng.choice((22, 234)) + rng.uniform(-8, 8), ground + rng.uniform(16, 26))
    _hills(draw, ground + 22, 9, (206, 130, 66), rng)
    _hills(draw, ground + 78, 7, (188, 112, 54), rng)
    return canvas


def _cactus(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    green = (64, 118, 66)
    for line in (
        [(x, y), (x, y - 88)],
        [(x, y - 34), (x - 22, y - 34), (x - 22, y - 64)],
        [(x, y - 46), (x + 22, y - 46), (x + 22, y - 74)],
    ):
        draw.line(line, fill=green, width=14, joint="curve")
        _disc(draw, *line[-1], 7, green)


def _night(rng: np.random.Generator) -> Image.Image:
    canvas = _sky((10, 12, 44), (58, 52, 112), rng)
    draw = ImageDraw.Draw(canvas)
    for x, y in rng.uniform(0, (CANVAS, 0.55 * CANVAS), (26, 2)):
        _disc(draw, x, y, rng.uniform(2, 4), (250, 246, 214))
    ground = rng.uniform(140, 156)
    _hills(draw, ground - 14, 14, (34, 36, 78), rng)
    _hills(draw, ground + 12, 8, (24, 42, 56), rng)
    return canvas


def _sea(rng: np.random.Generator) -> Image.Image:
    canvas = _sky((96, 206, 232), (8, 62, 132), rng)
    draw = ImageDraw.Draw(canvas)
    for x in rng.uniform(0, 220, 3):
        draw.polygon([(x, 0), (x + 22, 0), (x - 14, 150), (x - 58, 150)], fill=(120, 214, 236))
    _hills(draw, rng.uniform(214, 224), 6, (172, 168, 132), rng)
    for x in (rng.uniform(6, 40), rng.uniform(216, 250), rng.uniform(20, 60)):
        y = np.arange(CANVAS, CANVAS - rng.uniform(70, 120), -8.0)
        points = zip((x + 7 * np.sin(y / 11)).tolist(), y.tolist(), strict=True)
        draw.line([*points], fill=(28, 132, 92), width=9, joint="curve")
    for _ in range(8):
        x, y, radius = rng.uniform(8, 248), rng.uniform(10, 200), rng.uniform(4, 9)
        frame = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(frame, outline=(222, 246, 255), width=3)
    return canvas


def _city(rng: np.random.Generator) -> Image.Image:
    canvas = _sky((178, 186, 214), (246, 216, 206), rng)
    draw = ImageDraw.Draw(canvas)
    street, left = rng.uniform(166, 178), -rng.uniform(0, 30)
    while left < CANVAS:
        width, top = rng.uniform(36, 58), rng.uniform(26, 96)
        grey = round(rng.uniform(84, 132))
        draw.rectangle((left, top, left + width, CANVAS), fill=(grey, grey + 6, grey + 22))
        for y in np.arange(top + 12, street - 12, 20):
            for x in np.arange(left + 8, left + width - 10, 15):
                lit = rng.random() < 0.55
                window = (255, 226, 132) if lit else (62, 66, 84)
                draw.rectangle((x, y, x + 7, y + 10), fill=window)
        left += width + 3
    draw.rectangle((0, street, CANVAS, street + 12), fill=(170, 168, 172))
    draw.rectangle((0, street + 12, CANVAS, CANVAS), fill=(74, 74, 84))
    offset = rng.uniform(-50, 0)
    for x in np.arange(offset, CANVAS, 62):
        draw.rectangle((x, street + 44, x + 34, street + 50), fill=(232, 226, 200))
    return canvas


_PAINTERS = {
    "studio": _studio,
    "beach": _beach,
    "forest": _forest,
    "snow": _snow,
    "desert": _desert,
    "night": _night,
    "sea": _sea,
    "city": _city,
}

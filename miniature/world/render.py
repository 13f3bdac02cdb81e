"""From a description to an image: layout, sprites, accessories, masks.

Chance is drawn in separate streams for the scene, the layout and the style, so that two
descriptions rendered from equal generators differ only where the descriptions do. That is what
makes edit pairs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from miniature.world.description import NOTHING, Description, Entity, Figure
from miniature.world.scenes import CANVAS, draw_scene
from miniature.world.styles import SIDE, apply_style
from miniature.world.world import World

SCALE = CANVAS // SIDE

# Canvas units; a size is that of a sprite's longer side.
SIZE_ALONE, SIZE_OF_TWO = (132.0, 168.0), (98.0, 116.0)
GROUNDED = (None, "next to")  # relations in which every figure stands on the ground
SHADOW, SHADOWS = 84, {"sea": 0, "night": 120}  # darkness of the ground under a figure, of 255
LIGHT = (0.93, 1.07)  # how bright the sprites of an image are
SCENE_LIGHT = {"night": (0.8, 0.82, 0.94), "sea": (0.88, 0.97, 1.0), "desert": (1.0, 0.97, 0.92)}


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """A rendered description.

    Attributes:
        description: What it shows.
        image: The image.
        undressed: The same without accessories.
        masks: How much of each pixel each body covers, from 0 to 255, whatever it wears.
        accessory_masks: The same for what each figure wears.
    """

    description: Description
    image: UInt8[np.ndarray, "128 128 3"]
    undressed: UInt8[np.ndarray, "128 128 3"]
    masks: UInt8[np.ndarray, "figures 128 128"]
    accessory_masks: UInt8[np.ndarray, "figures 128 128"]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A sprite with its place on the canvas."""

    sprite: Image.Image
    left: int
    top: int

    def paste(self, canvas: Image.Image) -> Image.Image:
        """Put it onto an RGB canvas, and return what it covers, as an image of mode L."""
        canvas.paste(self.sprite, (self.left, self.top), self.sprite)
        cover = Image.new("L", canvas.size)
        cover.paste(self.sprite.getchannel("A"), (self.left, self.top))
        return cover


def render(world: World, description: Description, rng: np.random.Generator) -> Rendering:
    """Make an image.

    Args:
        world: Has the sprites.
        description: What to show.
        rng: Source of everything the description leaves open. It advances by the same amount
            whatever the description is.
    """
    sprites = [world.sprite(figure.entity) for figure in description.figures]
    return render_sprites(world, description, sprites, rng)


def render_sprites(
    world: World,
    description: Description,
    sprites: list[Image.Image],
    rng: np.random.Generator,
    scale: float = 1.0,
) -> Rendering:
    """Make an image with other sprites than those of the entities, or in another size."""
    scene_seed, layout_seed, style_seed = rng.integers(2**63, size=3)
    canvas = draw_scene(description.scene, np.random.default_rng(scene_seed))
    bodies = _layout(description, sprites, np.random.default_rng(layout_seed), scale)
    order = range(len(bodies))[::-1]  # what stands on top comes last
    for index in order if description.relation in GROUNDED else order[:1]:
        _cast_shadow(canvas, bodies[index], SHADOWS.get(description.scene, SHADOW))
    masks = {index: bodies[index].paste(canvas) for index in order}
    if len(masks) == 2:
        masks[1] = ImageChops.subtract(masks[1], masks[0])
    undressed = _finish(description.style, canvas, style_seed)
    covers = {
        index: _dress(canvas, world, description.figures[index].accessory, bodies[index])
        for index in order
    }
    dressed = any(figure.accessory != NOTHING for figure in description.figures)
    return Rendering(
        description=description,
        image=_finish(description.style, canvas, style_seed) if dressed else undressed,
        undressed=undressed,
        masks=_shrink(masks),
        accessory_masks=_shrink(covers),
    )


def sample_rendering(
    world: World,
    rng: np.random.Generator,
    held_out: bool | None = False,
    figures: int | None = None,
) -> Rendering:
    """Make an image of whatever ``World.sample_description`` comes up with."""
    return render(world, world.sample_description(rng, held_out, figures), rng)


def portrait(
    world: World,
    entity: Entity,
    rng: np.random.Generator,
    scene: str = "studio",
    scale: float = 1.0,
) -> Rendering:
    """Show an entity alone and undressed, on a plain ground if nothing else is said."""
    figure = Figure(entity=entity, accessory=NOTHING)
    description = Description(figures=(figure,), relation=None, scene=scene, style="plain")
    return render_sprites(world, description, [world.sprite(entity)], rng, scale)


def _finish(style: str, canvas: Image.Image, seed: int) -> UInt8[np.ndarray, "128 128 3"]:
    return np.array(apply_style(style, canvas, np.random.default_rng(seed)))


def _shrink(masks: dict[int, Image.Image]) -> UInt8[np.ndarray, "figures 128 128"]:
    return np.stack([np.asarray(masks[index].reduce(SCALE)) for index in sorted(masks)])


def _layout(
    description: Description,
    sprites: list[Image.Image],
    rng: np.random.Generator,
    scale: float,
) -> list[Placed]:
    """Place the figures so that each is whole, and two do not hide each other.

    Draws the same chance for any description.
    """
    across, down, apart = rng.uniform(-1, 1, 3)
    mirrored, swapped = rng.random(2) < 0.5, rng.random() < 0.5
    alone, of_two = rng.uniform(*SIZE_ALONE), rng.uniform(*SIZE_OF_TWO, 2)
    light = rng.uniform(*LIGHT) * np.array(SCENE_LIGHT.get(description.scene, (1.0, 1.0, 1.0)))

    def stand(index: int, x: float, bottom: float, size: float) -> Placed:
        sprite = sprites[index]
        share = scale * size / max(sprite.size)
        width, height = (max(1, round(side * share)) for side in sprite.size)
        sprite = _lit(sprite.resize((width, height), Image.Resampling.LANCZOS), light)
        sprite = ImageOps.mirror(sprite) if mirrored[index] else sprite
        return Placed(sprite=sprite, left=round(x - width / 2), top=round(bottom - height))

    if description.relation is None:
        return [stand(0, 128 + 30 * across, 226 + 10 * down, alone)]
    if description.relation == "next to":
        side = 62 if swapped else -62
        bottom = 220 + 12 * down
        return [
            stand(0, 128 + 4 * across + side, bottom + 6 * apart, of_two[0]),
            stand(1, 128 + 4 * across - side, bottom - 6 * apart, of_two[1]),
        ]
    x = 128 + 36 * across
    below = stand(1, x, 246, of_two[1])
    return [stand(0, x + 8 * apart, below.top + 8, of_two[0]), below]


def _lit(sprite: Image.Image, light: np.ndarray) -> Image.Image:
    *colours, alpha = sprite.split()
    bands = [
        band.point([min(255, round(value * gain)) for value in range(256)])
        for band, gain in zip(colours, light, strict=True)
    ]
    return Image.merge("RGBA", (*bands, alpha))


def _cast_shadow(canvas: Image.Image, body: Placed, darkness: int) -> None:
    """Darken the ground under a figure, between 0 (not at all) and 255 (black)."""
    mask = Image.new("L", canvas.size)
    width, bottom = body.sprite.width, body.top + body.sprite.height
    frame = (body.left + 0.06 * width, bottom - 12, body.left + 0.94 * width, bottom + 8)
    ImageDraw.Draw(mask).ellipse(frame, fill=darkness)
    canvas.paste((0, 0, 0), (0, 0), mask.filter(ImageFilter.BoxBlur(4)))


def _dress(canvas: Image.Image, world: World, name: str, body: Placed) -> Image.Image:
    """Put an accessory onto a figure, and return what it covers."""
    if name == NOTHING:
        return Image.new("L", canvas.size)
    x, head = _find_head(body.sprite)
    share, y, anchor = _WORN.get(name, _WORN["hat"])
    face = min(body.sprite.size)
    width = share * head
    sprite = world.art.accessories[name]
    size = (round(width), max(1, round(width * sprite.height / sprite.width)))
    placed = Placed(
        sprite=sprite.resize(size, Image.Resampling.LANCZOS),
        left=round(body.left + x - size[0] / 2),
        top=max(2, round(body.top + y * face - anchor * size[1])),
    )
    return placed.paste(canvas)


# Width by that of the head; height on the figure by its shorter side; the part of the accessory's
# own height that comes to lie there. What is not listed is worn as a hat is.
_WORN = {
    "hat": (0.76, 0.16, 1.0),
    "crown": (0.76, 0.15, 1.0),
    "glasses": (0.96, 0.4, 0.5),
    "bow": (0.66, 0.1, 0.5),
}


def _find_head(sprite: Image.Image) -> tuple[float, float]:
    """Find the middle and the width of what is on top of a sprite, in its pixels."""
    solid = np.asarray(sprite.getchannel("A")) > 128
    band = solid[round(0.08 * sprite.height) : max(1, round(0.34 * sprite.height))]
    columns = np.flatnonzero(band.any(axis=0))
    if not len(columns):
        return sprite.width / 2, sprite.width / 2
    width = float(np.clip(columns[-1] - columns[0] + 1, 0.45 * sprite.width, 0.78 * sprite.width))
    return float(columns[0] + columns[-1] + 1) / 2, min(width, 1.2 * min(sprite.size))

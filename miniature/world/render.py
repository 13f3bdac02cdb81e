"""From a description to an image: layout, drawing and masks.

Chance is drawn in separate streams for the scene, the layout and the style, so that two
descriptions rendered from equal generators differ only where the descriptions do. That is what
makes edit pairs.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageChops

from miniature.world.description import Description, Entity, Figure, sample_description
from miniature.world.figures import draw_accessory, draw_body, draw_shadow
from miniature.world.scenes import CANVAS, draw_scene
from miniature.world.shapes import Pose, shape
from miniature.world.styles import SIDE, apply_style

SCALE = CANVAS // SIDE

# In pixels. The radius is half a body's width.
RADIUS_ALONE, RADIUS_OF_TWO = (15.0, 18.0), (12.0, 13.2)
GAPS = {"above": 5.0, "on top of": -1.5}
TILT = 0.12  # radians, to either side
GROUNDED = (None, "next to")  # relations in which every figure stands on the ground
SHADOW, SHADOWS = 64, {"sea": 0, "night": 100}  # darkness of the ground under a figure, of 255


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
    image: UInt8[np.ndarray, "64 64 3"]
    undressed: UInt8[np.ndarray, "64 64 3"]
    masks: UInt8[np.ndarray, "figures 64 64"]
    accessory_masks: UInt8[np.ndarray, "figures 64 64"]


def render(description: Description, rng: np.random.Generator) -> Rendering:
    """Draw an image.

    Args:
        description: What to show.
        rng: Source of everything the description leaves open. It advances by the same amount
            whatever the description is.
    """
    scene_seed, layout_seed, style_seed = rng.integers(2**63, size=3)
    canvas = draw_scene(description.scene, np.random.default_rng(scene_seed))
    poses = _layout(description, np.random.default_rng(layout_seed))
    entities = [figure.entity for figure in description.figures]
    order = range(len(poses))[::-1]  # what stands on top is drawn last
    for index in order if description.relation in GROUNDED else order[:1]:
        bottom = _span(entities[index], poses[index])[1]
        draw_shadow(canvas, poses[index], bottom, SHADOWS.get(description.scene, SHADOW))
    bodies = {index: draw_body(canvas, entities[index], poses[index]) for index in order}
    if len(bodies) == 2:
        bodies[1] = ImageChops.subtract(bodies[1], bodies[0])
    undressed = _finish(description.style, canvas, style_seed)
    covers = {index: _dress(canvas, description.figures[index], poses[index]) for index in order}
    dressed = any(figure.accessory != "none" for figure in description.figures)
    return Rendering(
        description=description,
        image=_finish(description.style, canvas, style_seed) if dressed else undressed,
        undressed=undressed,
        masks=_shrink(bodies),
        accessory_masks=_shrink(covers),
    )


def sample_rendering(
    rng: np.random.Generator, held_out: bool | None = False, figures: int | None = None
) -> Rendering:
    """Draw an image of whatever :func:`sample_description` comes up with."""
    return render(sample_description(rng, held_out, figures), rng)


def portrait(entity: Entity, rng: np.random.Generator) -> Rendering:
    """Draw an entity alone and undressed on a plain ground: an input image for a prompt."""
    figure = Figure(entity=entity, accessory="none")
    description = Description(figures=(figure,), relation=None, scene="studio", style="picture")
    return render(description, rng)


def _finish(style: str, canvas: Image.Image, seed: int) -> UInt8[np.ndarray, "64 64 3"]:
    return np.array(apply_style(style, canvas, np.random.default_rng(seed)))


def _shrink(masks: dict[int, Image.Image]) -> UInt8[np.ndarray, "figures 64 64"]:
    return np.stack([np.asarray(masks[index].reduce(SCALE)) for index in sorted(masks)])


def _dress(canvas: Image.Image, figure: Figure, pose: Pose) -> Image.Image:
    if figure.accessory == "none":
        return Image.new("L", canvas.size, 0)
    return draw_accessory(canvas, figure.accessory, shape(figure.entity.shape), pose)


def _layout(description: Description, rng: np.random.Generator) -> list[Pose]:
    """Place the figures so that each is whole, and two do not hide each other.

    Draws the same chance for any description. The numbers are pixels of the image.
    """
    across, down, apart = rng.uniform(-1, 1, 3)
    tilts = rng.uniform(-TILT, TILT, 2)
    mirrored, swapped = rng.random(2) < 0.5, rng.random() < 0.5
    alone, of_two = rng.uniform(*RADIUS_ALONE), rng.uniform(*RADIUS_OF_TWO, 2)
    entities = [figure.entity for figure in description.figures]

    def stand(index: int, x: float, bottom: float, radius: float) -> Pose:
        pose = Pose(
            x=x * SCALE,
            y=0.0,
            radius=radius * SCALE,
            angle=tilts[index],
            mirrored=bool(mirrored[index]),
        )
        return replace(pose, y=bottom * SCALE - _span(entities[index], pose)[1])

    if description.relation is None:
        return [stand(0, 32 + 8 * across, 54 + 3 * down, alone)]
    if description.relation == "next to":
        side = 15.5 if swapped else -15.5
        bottom = 53 + 3 * down
        return [
            stand(0, 32 + across + side, bottom + 1.5 * apart, of_two[0]),
            stand(1, 32 + across - side, bottom - 1.5 * apart, of_two[1]),
        ]
    x = 32 + 9 * across
    below = stand(1, x, 60, of_two[1])
    top = _span(entities[1], below)[0] / SCALE
    return [stand(0, x + 2 * apart, top - GAPS[description.relation], 0.94 * of_two[0]), below]


def _span(entity: Entity, pose: Pose) -> tuple[float, float]:
    """Highest and lowest point of a body on the canvas."""
    heights = [y for _, y in pose.place(shape(entity.shape).outline)]
    return min(heights), max(heights)

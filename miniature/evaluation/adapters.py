"""A sheet with the decoder's techniques under a condition of KOSMOS-G (Figure 7).

As on the sheet of skills the examples are fixed and nothing is picked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kosmosg.diffusion.control import Control
from kosmosg.diffusion.init_image import InitImage
from kosmosg.diffusion.interpolation import interpolate
from kosmosg.diffusion.lora import LoRA
from kosmosg.pipeline import KosmosGPipeline
from miniature.evaluation.image_grids import Cell, lay_out
from miniature.evaluation.prompts import to_image
from miniature.world import (
    NATURAL,
    NOTHING,
    Description,
    Entity,
    Figure,
    Rendering,
    World,
    portrait,
    render,
)
from miniature.world.crops import entity_crops

EXAMPLES = 3  # of each technique
STEPS, GUIDANCE, SEED, SAMPLER = 30, 5.0, 1, "DPMSolverMultistep"
PENGUIN = Entity(noun="penguin", colour=NATURAL, art="clay")
OWL = Entity(noun="owl", colour=NATURAL, art="flat")
DOG = Entity(noun="dog", colour=NATURAL, art="clay")  # whom others take the place of
LAYOUTS = {"left": 1, "right": 53}  # seeds of images with a figure there


@dataclass(frozen=True, kw_only=True)
class AdapterCase:
    """A prompt with its images, and a technique.

    Attributes:
        prompt: With a marker for each image.
        images: The images at the markers.
        technique: Arguments of ``KosmosGPipeline``.
        shown: The technique's own images.
        note: What else decides, for the sheet.
    """

    prompt: str
    images: Sequence[Image.Image]
    technique: dict[str, Any]
    shown: Sequence[Image.Image] = field(default=())
    note: str = ""


def draw_techniques(world: World, pipeline: KosmosGPipeline, lora: Path) -> Image.Image:
    """Draw three examples of each technique, one row per technique.

    Args:
        world: Has the input images.
        pipeline: The miniature, with a ControlNet for edges.
        lora: File of a LoRA for its U-Net.

    Raises:
        KosmosGError: If a network is missing or does not fit.
    """
    rows = make_examples(world, lora)
    cells = [_draw(pipeline, example) for row in rows.values() for example in row]
    cells += _mixtures(pipeline, _portrait(world, PENGUIN), _portrait(world, OWL))
    return lay_out(cells, EXAMPLES, titles=(*rows, "Mixing"))


def make_examples(world: World, lora: Path) -> dict[str, list[AdapterCase]]:
    """Examples of all techniques but mixing, by technique."""
    penguin, owl, rendering = _portrait(world, PENGUIN), _portrait(world, OWL), draw_street(world)
    street, mask = to_image(rendering.image), draw_mask(rendering)
    there = "a <i> on a city street"

    def styled(scale: float) -> AdapterCase:
        technique = {"lora": LoRA(file=lora, scale=scale)}
        return AdapterCase(
            prompt="a <i> on the beach",
            images=[penguin],
            technique=technique,
            note=f"LoRA at {scale:g}",
        )

    def controlled(prompt: str, side: str) -> AdapterCase:
        layout = to_image(draw_layout(world, side).image)
        technique = {"control": Control(kind="canny", image=layout)}
        return AdapterCase(
            prompt=prompt, images=[penguin], technique=technique, shown=[layout], note="edges"
        )

    def begun(strength: float) -> AdapterCase:
        technique = {"init": InitImage(image=street, strength=strength)}
        note = f"strength {strength:g}"
        return AdapterCase(
            prompt=there, images=[penguin], technique=technique, shown=[street], note=note
        )

    def painted(prompt: str, image: Image.Image) -> AdapterCase:
        technique = {"init": InitImage(image=street, mask=mask, strength=1.0)}
        return AdapterCase(prompt=prompt, images=[image], technique=technique, shown=[street, mask])

    return {
        "LoRA": [styled(scale) for scale in (0.0, 0.75, 1.0)],
        "ControlNet for edges": [
            controlled("a <i> in the snow", "left"),
            controlled("a <i> in the snow", "right"),
            controlled("a <i> on the beach", "left"),
        ],
        "Image to image": [begun(strength) for strength in (0.5, 0.7, 0.9)],
        "Inpainting": [
            painted(there, penguin),
            painted(there, owl),
            painted("a <i> wearing a hat on a city street", penguin),
        ],
    }


def draw_layout(world: World, side: str) -> Rendering:
    """Show a dog far to the ``left`` or the ``right``: where others are to be."""
    return portrait(world, DOG, np.random.default_rng(LAYOUTS[side]))


def draw_street(world: World) -> Rendering:
    """Show a dog on a street: the image that others start from."""
    figure = Figure(entity=DOG, accessory=NOTHING)
    description = Description(figures=(figure,), relation=None, scene="city", style="plain")
    return render(world, description, np.random.default_rng(3))


def draw_mask(rendering: Rendering) -> Image.Image:
    """Draw a mask that is white in the square around the first entity."""
    mask = Image.new("L", to_image(rendering.image).size)
    mask.paste(255, entity_crops(rendering)[0].box)
    return mask


def _portrait(world: World, entity: Entity) -> Image.Image:
    return to_image(portrait(world, entity, np.random.default_rng(1)).image)


def _draw(pipeline: KosmosGPipeline, example: AdapterCase) -> Cell:
    output = pipeline(
        example.prompt,
        example.images,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        scheduler=SAMPLER,
        seed=SEED,
        **example.technique,
    ).images[0]
    text = f"{example.prompt}; {example.note}" if example.note else example.prompt
    return Cell(inputs=[*example.images, *example.shown], prompt=text, output=output)


def _mixtures(pipeline: KosmosGPipeline, first: Image.Image, second: Image.Image) -> list[Cell]:
    """Draw what lies between two images, without the ends."""
    prompt, count = "a <i> in the snow", EXAMPLES + 2
    ends, _ = pipeline.encode_prompt([prompt] * 2, [[first], [second]])
    output = pipeline(
        prompt_embeds=interpolate(ends[0], ends[1], count),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        scheduler=SAMPLER,
        seed=[SEED] * count,
    )
    return [
        Cell(
            inputs=[first, second],
            prompt=f"{prompt}; share of the second {place / (count - 1):g}",
            output=output.images[place],
        )
        for place in range(1, count - 1)
    ]

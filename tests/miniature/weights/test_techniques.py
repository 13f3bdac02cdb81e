"""The decoder's techniques under the embedded model's conditions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg import Control, InitImage, KosmosGPipeline, LoRA
from kosmosg.prompts.prompt import parse_prompt
from miniature.evaluation.adapters import CAT, draw_layout, draw_mask, draw_street, make_examples
from miniature.evaluation.probe import Probe
from miniature.evaluation.prompts import to_image
from miniature.world import portrait
from tests.conftest import ROOT

NEON = ROOT / "samples" / "neon.safetensors"
PLACES = ("on the beach", "in the snow", "in the desert", "in the forest")


@pytest.fixture(scope="module")
def street() -> Image.Image:
    return to_image(draw_street().image)


def draw(pipeline: KosmosGPipeline, **technique: Any) -> list[Image.Image]:
    cat = to_image(portrait(CAT, np.random.default_rng(1)).image)
    prompts = [f"a <i> {place}" for place in PLACES]
    settings = {"num_inference_steps": 20, "guidance_scale": 5.0, "seed": 1} | technique
    return pipeline(prompts, [[cat]] * len(PLACES), **settings).images


def test_the_lora_changes_the_style_and_its_strength_counts(
    pipeline: KosmosGPipeline, probe: Probe
) -> None:
    styles = {
        scale: [reading.style for reading in probe.read(draw(pipeline, lora=lora))]
        for scale, lora in ((s, LoRA(file=NEON, scale=s)) for s in (0.0, 1.0))
    }
    assert "neon" not in styles[0.0]
    assert styles[1.0].count("neon") >= 3


def overlap(image: Image.Image, mask: np.ndarray) -> float:
    """Share of a yellow entity and of where it is to be that they have in common."""
    red, _, blue = np.moveaxis(np.asarray(image, dtype=int), -1, 0)
    yellow, wanted = red - blue > 60, mask > 128
    return float((yellow & wanted).sum() / (yellow | wanted).sum())


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_controlnet_says_where_the_entity_is(
    pipeline: KosmosGPipeline, probe: Probe, side: str
) -> None:
    cat = to_image(portrait(CAT, np.random.default_rng(1)).image)
    layout = draw_layout(side)
    found = {}
    for scale in (0.0, 1.0):
        control = Control(kind="canny", image=to_image(layout.image), scale=scale)
        (image,) = pipeline(
            "a <i> in the snow",
            [cat],
            num_inference_steps=20,
            guidance_scale=5.0,
            seed=1,
            control=control,
        ).images
        found[scale] = overlap(image, layout.masks[0])
    assert found[1.0] > 0.8 > found[0.0]
    # The entity still is that of the input image, not that of the layout.
    assert probe.read([image])[0].figures[0].entity.colour == "yellow"


def test_inpainting_puts_the_entity_into_the_image(
    pipeline: KosmosGPipeline, probe: Probe, street: Image.Image
) -> None:
    mask = draw_mask(draw_street())
    painted = draw(pipeline, init=InitImage(image=street, mask=mask, strength=1.0))
    kept = np.asarray(mask) == 0
    for image in painted:
        assert np.array_equal(np.asarray(image)[kept], np.asarray(street)[kept])
    colours = [reading.figures[0].entity.colour for reading in probe.read(painted)]
    assert colours.count("yellow") >= 3


def test_the_images_of_the_requests_are_what_the_world_draws(street: Image.Image) -> None:
    drawn = {
        "red-cat": street,
        "red-cat-left": to_image(draw_layout("left").image),
        "red-cat-mask": draw_mask(draw_street()),
    }
    for name, image in drawn.items():
        assert Image.open(ROOT / "samples" / f"{name}.png").tobytes() == image.tobytes(), name


def test_the_examples_of_the_sheet_can_be_drawn() -> None:
    for row in make_examples(Path(NEON)).values():
        assert len(row) == 3
        for example in row:
            parse_prompt(example.prompt, len(example.images))

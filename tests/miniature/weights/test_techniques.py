"""The decoder's techniques under the embedded model's conditions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg import Control, InitImage, KosmosGPipeline, LoRA
from kosmosg.prompts.prompt import parse_prompt
from miniature.evaluation.adapters import draw_layout, draw_mask, draw_street, make_examples
from miniature.evaluation.probe import Probe
from miniature.evaluation.prompts import to_image
from miniature.world import NATURAL, Entity, World, portrait
from tests.conftest import ROOT

NEON = ROOT / "samples" / "neon.safetensors"
CHICK = Entity(noun="chick", colour=NATURAL, art="flat")  # yellow
PLACES = ("on the beach", "in the snow", "in the desert", "in the forest")


@pytest.fixture(scope="module")
def street(public: World) -> Image.Image:
    return to_image(draw_street(public).image)


def draw(public: World, pipeline: KosmosGPipeline, **technique: Any) -> list[Image.Image]:
    chick = to_image(portrait(public, CHICK, np.random.default_rng(1)).image)
    prompts = [f"a <i> {place}" for place in PLACES]
    settings = {"num_inference_steps": 20, "guidance_scale": 5.0, "seed": 1} | technique
    return pipeline(prompts, [[chick]] * len(PLACES), **settings).images


def test_the_lora_changes_the_style_and_its_strength_counts(
    public: World, pipeline: KosmosGPipeline, probe: Probe
) -> None:
    styles = {
        scale: [reading.style for reading in probe.read(draw(public, pipeline, lora=lora))]
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
    public: World, pipeline: KosmosGPipeline, probe: Probe, side: str
) -> None:
    chick = to_image(portrait(public, CHICK, np.random.default_rng(1)).image)
    layout = draw_layout(public, side)
    found = {}
    for scale in (0.0, 1.0):
        control = Control(kind="canny", image=to_image(layout.image), scale=scale)
        (image,) = pipeline(
            "a <i> in the snow",
            [chick],
            num_inference_steps=20,
            guidance_scale=5.0,
            seed=1,
            control=control,
        ).images
        found[scale] = overlap(image, layout.masks[0])
    assert found[1.0] > 0.8 > found[0.0]
    # The entity still is that of the input image, not that of the layout.
    assert probe.read([image])[0].figures[0].entity.noun == "chick"


def test_inpainting_puts_the_entity_into_the_image(
    public: World, pipeline: KosmosGPipeline, probe: Probe, street: Image.Image
) -> None:
    mask = draw_mask(draw_street(public))
    painted = draw(public, pipeline, init=InitImage(image=street, mask=mask, strength=1.0))
    kept = np.asarray(mask) == 0
    for image in painted:
        assert np.array_equal(np.asarray(image)[kept], np.asarray(street)[kept])
    nouns = [reading.figures[0].entity.noun for reading in probe.read(painted)]
    assert nouns.count("chick") >= 3


def test_the_images_of_the_requests_are_what_the_world_shows(
    public: World, street: Image.Image
) -> None:
    drawn = {
        "dog": street,
        "dog-left": to_image(draw_layout(public, "left").image),
        "dog-mask": draw_mask(draw_street(public)),
    }
    for name, image in drawn.items():
        assert Image.open(ROOT / "samples" / f"{name}.png").tobytes() == image.tobytes(), name


def test_the_examples_of_the_sheet_can_be_made(public: World) -> None:
    for row in make_examples(public, Path(NEON)).values():
        assert len(row) == 3
        for example in row:
            parse_prompt(example.prompt, len(example.images))

"""The decoder's techniques under the embedded model's conditions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg import InitImage, KosmosGPipeline, LoRA
from kosmosg.data.miniature import portrait
from kosmosg.evaluation.cases import to_image
from kosmosg.evaluation.probe import Probe
from kosmosg.evaluation.techniques import CAT, draw_mask, draw_street, make_examples
from kosmosg.prompt import parse_prompt
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


def test_inpainting_puts_the_entity_into_the_picture(
    pipeline: KosmosGPipeline, probe: Probe, street: Image.Image
) -> None:
    mask = draw_mask(draw_street())
    painted = draw(pipeline, init=InitImage(image=street, mask=mask, strength=1.0))
    kept = np.asarray(mask) == 0
    for image in painted:
        assert np.array_equal(np.asarray(image)[kept], np.asarray(street)[kept])
    colours = [reading.figures[0].entity.colour for reading in probe.read(painted)]
    assert colours.count("yellow") >= 3


def test_the_pictures_of_the_requests_are_what_the_world_draws(street: Image.Image) -> None:
    samples = {
        name: Image.open(ROOT / "samples" / f"{name}.png") for name in ("red-cat", "red-cat-mask")
    }
    assert samples["red-cat"].tobytes() == street.tobytes()
    assert samples["red-cat-mask"].tobytes() == draw_mask(draw_street()).tobytes()


def test_the_examples_of_the_sheet_can_be_drawn() -> None:
    for row in make_examples(Path(NEON)).values():
        assert len(row) == 3
        for example in row:
            parse_prompt(example.prompt, len(example.images))

"""What decides an image, and what a request asks for.

Shares are of few fixed prompts, so their thresholds lie well below the README's table.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kosmosg import KosmosGPipeline
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from miniature.evaluation.probe import Probe
from miniature.evaluation.probe_labels import Reading, true_reading
from miniature.world import NATURAL, SCENES, Entity, World, portrait
from miniature.world.stream import RenderingStream
from tests.conftest import ROOT

STEPS, GUIDANCE = 20, 5.0
PENGUIN = Entity(noun="penguin", colour=NATURAL, art="clay")
PLACES = {
    "beach": "a <i> on the beach",
    "city": "a <i> on a city street",
    "snow": "a <i> in the snow",
    "sea": "a <i> under the sea",
    "desert": "a <i> in the desert",
    "forest": "a <i> in the forest",
}


def show(world: World, entity: Entity, seed: int = 0) -> Image.Image:
    return Image.fromarray(portrait(world, entity, np.random.default_rng(seed)).image)


def draw(
    pipeline: KosmosGPipeline,
    prompts: Sequence[str],
    images: Sequence[Sequence[Image.Image]] | None = None,
    **settings: Any,
) -> list[Image.Image]:
    settings = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "seed": 1} | settings
    given = [list(each) for each in images] if images else None
    return pipeline(list(prompts), given, **settings).images


def share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def pixels(image: Any) -> np.ndarray:
    return np.asarray(image, dtype=np.float64)


def psnr(images: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    """Compare 8-bit images, in decibels; infinite if they are the same."""
    pairs = zip(images, others, strict=True)
    error = np.mean([np.square(pixels(a) - pixels(b)).mean() for a, b in pairs])
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


# ------------------------------------------------------------------ what is in the repository


def test_the_files_are_small_and_nothing_but_tensors_and_text(embedded: Path) -> None:
    files = [file for file in embedded.rglob("*") if file.is_file()]
    sizes = [file.stat().st_size for file in files]
    assert sum(sizes) <= 48_000_000
    assert max(sizes) <= 24_000_000
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".txt", ".model"}


def test_the_tokenizer_is_its_own_and_not_the_real_one(embedded: Path) -> None:
    tokenizer = KosmosGTokenizer.from_pretrained(embedded / "tokenizer")
    assert len(tokenizer) < 1000


def test_the_probe_reads_fresh_renders(public: World, probe: Probe) -> None:
    drawn = [sample.rendering for sample in islice(RenderingStream(public, seed=987654), 300)]
    found = probe.read([Image.fromarray(image.image) for image in drawn])
    pairs = [*zip(found, map(true_reading, drawn), strict=True)]
    figures = [(a, b) for f, t in pairs for a, b in zip(f.figures, t.figures, strict=False)]
    for name in ("noun", "colour", "art"):
        hits = [getattr(a.entity, name) == getattr(b.entity, name) for a, b in figures]
        assert share(hits) >= 0.97, name
    assert share([a.accessory == b.accessory for a, b in figures]) >= 0.97
    assert share([found.scene == true.scene for found, true in pairs]) >= 0.97


# ------------------------------------------------------------------ what decides an image


def test_the_text_decides_the_scene(public: World, pipeline: KosmosGPipeline, probe: Probe) -> None:
    prompts = [*PLACES.values()] * 2
    readings = probe.read(draw(pipeline, prompts, [[show(public, PENGUIN)]] * len(prompts)))
    assert set(PLACES) <= set(SCENES)
    hits = [reading.scene == place for reading, place in zip(readings, [*PLACES] * 2, strict=True)]
    assert share(hits) >= 0.75


def test_the_image_decides_the_entity(
    public: World, pipeline: KosmosGPipeline, probe: Probe
) -> None:
    shown = public.entities(True)[::2]
    readings = probe.read(
        draw(pipeline, [PLACES["beach"]] * len(shown), [[show(public, e)] for e in shown])
    )
    for name, least in (("noun", 0.6), ("colour", 0.8), ("art", 0.6)):
        hits = [
            getattr(reading.figures[0].entity, name) == getattr(entity, name)
            for reading, entity in zip(readings, shown, strict=True)
        ]
        assert share(hits) >= least, name


def test_guidance_makes_images_keep_to_the_prompt(
    public: World, pipeline: KosmosGPipeline, probe: Probe
) -> None:
    shown = public.entities(True)
    prompts = [prompt for _, prompt in zip(shown, [*PLACES.values()] * 9, strict=False)]

    def hits(guidance_scale: float) -> float:
        images = [[show(public, entity)] for entity in shown]
        readings = probe.read(draw(pipeline, prompts, images, guidance_scale=guidance_scale))
        return share([right(*pair) for pair in zip(readings, shown, strict=True)])

    def right(reading: Reading, entity: Entity) -> bool:
        return reading.figures[0].entity == entity

    assert hits(GUIDANCE) > hits(1.0)


# ------------------------------------------------------------------ what a request asks for


def test_the_same_seed_gives_the_same_image(public: World, pipeline: KosmosGPipeline) -> None:
    first, again, other = (
        draw(pipeline, [PLACES["snow"]], [[show(public, PENGUIN)]], seed=seed)[0]
        for seed in (3, 3, 4)
    )
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_several_images_are_those_of_seeds_that_follow(
    public: World, pipeline: KosmosGPipeline
) -> None:
    together = draw(
        pipeline, [PLACES["snow"]], [[show(public, PENGUIN)]], num_images_per_prompt=3, seed=5
    )
    alone = [
        draw(pipeline, [PLACES["snow"]], [[show(public, PENGUIN)]], seed=seed)[0]
        for seed in (5, 6, 7)
    ]
    assert len({image.tobytes() for image in together}) == 3
    assert psnr(together, alone) > 45


def test_a_negative_prompt_equal_to_the_prompt_takes_guidance_away(
    pipeline: KosmosGPipeline,
) -> None:
    text = "a red fox on the beach"
    undone = draw(pipeline, [text], negative_prompt=text)
    unguided = draw(pipeline, [text], guidance_scale=1.0)
    guided = draw(pipeline, [text])
    assert psnr(undone, unguided) > 40
    assert psnr(guided, unguided) < 30


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 30.0), (torch.bfloat16, 18.0)])
def test_half_precision_stays_close(
    public: World, embedded: Path, pipeline: KosmosGPipeline, dtype: torch.dtype, least: float
) -> None:
    half = KosmosGPipeline.from_pretrained(embedded, device="cpu", torch_dtype=dtype)
    prompts, images = [*PLACES.values()], [[show(public, PENGUIN)]] * len(PLACES)
    found = psnr(draw(half, prompts, images), draw(pipeline, prompts, images))
    assert found > least


def test_the_sample_is_what_the_world_shows(public: World) -> None:
    sample = Image.open(Path(ROOT, "samples", "penguin.png"))
    assert sample.tobytes() == show(public, PENGUIN, seed=1).tobytes()

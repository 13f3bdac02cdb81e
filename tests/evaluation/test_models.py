"""Pipelines of diffusers in KOSMOS-G's place."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from kosmosg.diffusion.sampling import draw_noise
from kosmosg.diffusion.schedulers import make_scheduler
from kosmosg.errors import OutOfMemoryError, SettingError, WeightsError
from kosmosg.evaluation.models import (
    Sampling,
    diffusers_generator,
    kosmosg_generator,
    load_diffusers,
)
from kosmosg.pipeline import KosmosGPipeline
from tests.evaluation.fabricated import Fabricated

ON_CPU: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
PROMPTS = ["a dog", "a cat"]


def largest_difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def test_stable_diffusion_begins_with_the_noise_of_kosmosg(fabricated: Fabricated) -> None:
    sampling = Sampling(steps=2, guidance_scale=3.0, scheduler="DDIM")
    generate = diffusers_generator(load_diffusers(fabricated.pipeline, **ON_CPU), sampling)
    found = generate(PROMPTS, [(), ()], [4, 9])
    pipeline: Any = DiffusionPipeline.from_pretrained(fabricated.pipeline, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler("DDIM", pipeline.scheduler.config)
    expected = pipeline(
        PROMPTS,
        latents=draw_noise([4, 9], 4, 8, 8),
        num_inference_steps=2,
        guidance_scale=3.0,
    ).images
    for one, other in zip(found, expected, strict=True):
        assert largest_difference(one, other) <= 1
        assert np.asarray(one).std() > 1  # not black, though its safety checker flags everything


@pytest.mark.parametrize("diffusers", [True, False])
def test_noise_on_the_way_comes_from_the_seed_too(
    fabricated: Fabricated, small_weights: Path, diffusers: bool
) -> None:
    """An image is the same beside others and alone, and another with another seed."""
    sampling = Sampling(steps=3, guidance_scale=3.0, scheduler="EulerAncestral")
    if diffusers:
        generate = diffusers_generator(load_diffusers(fabricated.pipeline, **ON_CPU), sampling)
    else:
        pipeline = KosmosGPipeline.from_pretrained(small_weights, device="cpu")
        generate = kosmosg_generator(pipeline, sampling)
    _, beside, other = generate(["a dog", "a cat", "a cat"], [(), (), ()], [4, 9, 5])
    (alone,) = generate(["a cat"], [()], [9])
    assert largest_difference(alone, beside) <= 1
    assert largest_difference(alone, other) > 10


def test_steps_that_a_sampler_does_not_take(fabricated: Fabricated, small_weights: Path) -> None:
    sampling = Sampling(steps=100, guidance_scale=1.0, scheduler="LCM")
    plain = load_diffusers(fabricated.pipeline, **ON_CPU)
    ours = KosmosGPipeline.from_pretrained(small_weights, device="cpu")
    with pytest.raises(SettingError, match="LCM takes at most"):
        diffusers_generator(plain, sampling)
    with pytest.raises(SettingError, match="LCM takes at most"):
        kosmosg_generator(ours, sampling)


class Squares(DiffusionPipeline):
    """A pipeline without a U-Net: one number of each generator is the colour of an image."""

    def __call__(
        self,
        prompt: list[str],
        num_inference_steps: int,
        guidance_scale: float,
        output_type: str,
        generator: list[torch.Generator],
    ) -> Any:
        assert (num_inference_steps, guidance_scale, output_type) == (2, 3.0, "pt")
        colours = [torch.rand((), generator=each) for each in generator]
        return SimpleNamespace(images=torch.stack([c.expand(3, 4, 4) for c in colours]))


def test_any_other_samples_from_generators_of_its_own() -> None:
    generate = diffusers_generator(Squares(), Sampling(steps=2, guidance_scale=3.0))
    one, other, again = generate(["a", "b", "c"], [(), (), ()], [1, 2, 1])
    assert one.tobytes() == again.tobytes() != other.tobytes()
    assert generate(["b"], [()], [2])[0].tobytes() == other.tobytes()


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize("diffusers", [True, False])
def test_what_would_be_black_is_no_image(
    fabricated: Fabricated, small_weights: Path, diffusers: bool, part: str
) -> None:
    sampling = Sampling(steps=1, guidance_scale=3.0)
    pipeline: Any
    if diffusers:
        pipeline = load_diffusers(fabricated.pipeline, **ON_CPU)
        network, generate = getattr(pipeline, part), diffusers_generator(pipeline, sampling)
    else:
        pipeline = KosmosGPipeline.from_pretrained(small_weights, device="cpu")
        network, generate = getattr(pipeline, part), kosmosg_generator(pipeline, sampling)
    with torch.no_grad():
        (network.conv_out if part == "unet" else network.decoder.conv_out).bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="not finite"):
        generate(["a dog"], [()], [4])


def test_a_batch_that_is_too_large(fabricated: Fabricated, monkeypatch: Any) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    pipeline = load_diffusers(fabricated.pipeline, **ON_CPU)
    monkeypatch.setattr(pipeline.unet, "forward", fail)
    generate = diffusers_generator(pipeline, Sampling(steps=1, guidance_scale=3.0))
    with pytest.raises(OutOfMemoryError, match=r"2 images at once do not fit .* --batch"):
        generate(PROMPTS, [(), ()], [4, 9])


def test_what_is_no_pipeline(fabricated: Fabricated, tmp_path: Path) -> None:
    for source in (tmp_path, fabricated.dino, "nobody/nothing"):
        with pytest.raises(WeightsError, match="cannot be opened as a pipeline of diffusers"):
            load_diffusers(source, **ON_CPU)
    folder = tmp_path / "pipeline"
    shutil.copytree(fabricated.pipeline, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(
        folder / "unet" / "diffusion_pytorch_model.bin"
    )
    with pytest.raises(WeightsError, match="cannot be opened as a pipeline"):
        load_diffusers(folder, **ON_CPU)

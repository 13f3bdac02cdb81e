"""Guidance that ends before the last step, and samplers for LoRAs that need none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, TCDScheduler
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from kosmosg import Control, GenerationRequest, InitImage, KosmosGPipeline, LoRA
from kosmosg.diffusion.control import ControlNets
from kosmosg.diffusion.schedulers import SAMPLERS
from kosmosg.errors import SettingError
from tests.diffusion import loras
from tests.diffusion.generation import difference, generate, noise_image
from tests.diffusion.test_control import write_controlnet

GUIDES: dict[str, dict[str, Any]] = {
    "text to image": {},
    "image to image": {"init": InitImage(image=noise_image(), strength=1)},
    "control": {"control": Control(kind="depth", image=noise_image(), preprocess=False)},
}
GUIDES["both"] = GUIDES["image to image"] | GUIDES["control"]


@pytest.fixture
def controlled(
    pipe: KosmosGPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> KosmosGPipeline:
    write_controlnet(tmp_path / "depth", pipe.unet)
    monkeypatch.setattr(pipe, "controlnets", ControlNets([tmp_path]))
    return pipe


def count_rows(pipe: KosmosGPipeline, **settings: Any) -> list[int]:
    """Count what goes through the U-Net at every step."""
    rows: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    try:
        pipe("a cat", seed=5, **settings)
    finally:
        hook.remove()
    return rows


@pytest.mark.parametrize("guides", GUIDES)
def test_what_is_left_out_is_not_computed(controlled: KosmosGPipeline, guides: str) -> None:
    settings = {"num_inference_steps": 4, "num_images_per_prompt": 2} | GUIDES[guides]
    rows = {end: count_rows(controlled, guidance_end=end, **settings) for end in (0, 0.5, 1)}
    assert rows == {0: [2] * 4, 0.5: [4, 4, 2, 2], 1: [4] * 4}


@pytest.mark.parametrize(
    ("steps", "end", "guided"), [(10, 0.7, 7), (10, 0.71, 8), (3, 0.01, 1), (1, 0.5, 1), (7, 1, 7)]
)
def test_a_step_that_has_begun_is_guided(
    pipe: KosmosGPipeline, steps: int, end: float, guided: int
) -> None:
    rows = count_rows(pipe, num_inference_steps=steps, guidance_end=end)
    assert rows == [2] * guided + [1] * (steps - guided)


@pytest.mark.parametrize("guides", GUIDES)
def test_the_ends_are_full_guidance_and_none(controlled: KosmosGPipeline, guides: str) -> None:
    guide = GUIDES[guides]
    whole, none = generate(controlled, **guide), generate(controlled, guidance_scale=1, **guide)
    assert difference(whole, generate(controlled, guidance_end=1, **guide)) == 0
    assert difference(none, generate(controlled, guidance_end=0, **guide)) == 0
    half = generate(controlled, guidance_end=0.5, **guide)
    assert difference(half, whole) > 0
    assert difference(half, none) > 0


def test_it_is_what_diffusers_calls_a_cutoff(pipe: KosmosGPipeline) -> None:
    settings: dict[str, Any] = {"cutoff_step_ratio": None, "cutoff_step_index": 1}
    cutoff = SDCFGCutoffCallback(**settings)
    theirs = _diffusers(
        pipe,
        DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading"),
        callback_on_step_end=cutoff,
        callback_on_step_end_tensor_inputs=cutoff.tensor_inputs,
        guidance_scale=6.0,
    )
    assert difference(generate(pipe, scheduler="DDIM", guidance_end=0.5), theirs) <= 1


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_an_image_does_not_depend_on_its_neighbours(pipe: KosmosGPipeline, scheduler: str) -> None:
    settings: dict[str, Any] = {"guidance_end": 0.5, "num_inference_steps": 4}
    settings["scheduler"] = scheduler
    together = pipe(["a cat", "a dog"], seed=5, num_images_per_prompt=2, **settings).images
    alone = pipe("a dog", seed=8, **settings).images[0]
    assert difference(together[3], alone) <= 1


def test_the_next_request_is_guided(pipe: KosmosGPipeline) -> None:
    before = generate(pipe)
    generate(pipe, guidance_end=0.25)
    assert difference(before, generate(pipe)) == 0


def test_bounds_and_metadata(pipe: KosmosGPipeline) -> None:
    with pytest.raises(SettingError, match=r"guidance_end is 1\.5; it must be from 0 to 1"):
        GenerationRequest(prompt="a cat", guidance_end=1.5)
    result = pipe("a cat", num_inference_steps=2, guidance_end=0.5)
    assert result.recipes[0]["guidance_end"] == 0.5


# ------------------------------------------------------------------ LoRAs for few steps


@pytest.fixture
def lora(pipe: KosmosGPipeline, tmp_path: Path) -> LoRA:
    factors = loras.peft(loras.make_factors(pipe.unet))
    return LoRA(file=loras.write(tmp_path / "lora.safetensors", factors))


def _diffusers(
    pipe: KosmosGPipeline, scheduler: Any, file: Any = None, **settings: Any
) -> Image.Image:
    """Draw the image that ``generate`` draws with diffusers' pipeline alone."""
    condition, negative = pipe.encode_prompt("a cat")
    parts: dict[str, Any] = pipe.decoder_with("DDIM").components | {"scheduler": scheduler}
    plain: Any = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    if file:
        plain.load_lora_weights(file)
    try:
        given: dict[str, Any] = {"guidance_scale": 0, "num_inference_steps": 4} | settings
        return plain(
            prompt_embeds=condition,
            negative_prompt_embeds=negative,
            generator=torch.Generator().manual_seed(5),
            **given,
        ).images[0]
    finally:
        plain.unload_lora_weights()


def test_tcd_is_that_of_diffusers(pipe: KosmosGPipeline, lora: LoRA) -> None:
    """The guidance of 0 that model cards give is our 1: none."""
    theirs = _diffusers(pipe, TCDScheduler.from_config(pipe.scheduler.config), lora.file)
    ours = generate(pipe, scheduler="TCD", lora=lora, guidance_scale=1)
    assert difference(ours, theirs) <= 1


def test_tcd_takes_the_steps_of_a_ddim_that_begins_at_noise(pipe: KosmosGPipeline) -> None:
    config = pipe.scheduler.config
    trailing = DDIMScheduler.from_config(config, timestep_spacing="trailing")
    theirs = _diffusers(pipe, trailing, num_inference_steps=5, guidance_scale=6.0)
    assert difference(generate(pipe, scheduler="TCD", num_inference_steps=5), theirs) <= 1


@pytest.mark.parametrize(
    ("settings", "spacing"),
    [
        ({"guidance_scale": 1, "num_inference_steps": 8}, "trailing"),
        ({"guidance_end": 0, "num_inference_steps": 1}, "trailing"),
        ({"guidance_scale": 1, "num_inference_steps": 9}, "leading"),
        ({"guidance_scale": 1.5, "num_inference_steps": 8}, "leading"),
        ({"guidance_scale": 1, "num_inference_steps": 8, "lora": None}, "leading"),
    ],
)
def test_ddim_begins_at_noise_where_steps_are_few(
    pipe: KosmosGPipeline, lora: LoRA, settings: dict[str, Any], spacing: str
) -> None:
    asked: dict[str, Any] = {"lora": lora} | settings
    request = GenerationRequest(prompt="a cat", **asked)
    scheduler = pipe.decoder_with("DDIM", distilled=request.distilled).scheduler
    assert scheduler.config["timestep_spacing"] == spacing


def test_a_lora_for_four_steps_with_ddim(pipe: KosmosGPipeline, lora: LoRA) -> None:
    config = pipe.scheduler.config
    spaced = [
        _diffusers(pipe, DDIMScheduler.from_config(config, timestep_spacing=spacing), lora.file)
        for spacing in ("trailing", "leading")
    ]
    ours = generate(pipe, scheduler="DDIM", lora=lora, guidance_scale=1)
    assert difference(ours, spaced[0]) <= 1
    assert difference(ours, spaced[1]) > 8

"""The pipeline on a small random model: what an image depends on, and what not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image

from kosmosg import KosmosGPipeline
from kosmosg.checkpoints.folder import find_weights
from kosmosg.diffusion import sampling
from kosmosg.diffusion.sampling import draw_noise
from kosmosg.diffusion.schedulers import SAMPLERS
from kosmosg.errors import OutOfMemoryError, PromptError, SettingError, WeightsError
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.batch import collate
from kosmosg.prompts.images import clip_pixels
from kosmosg.utils.memory import is_out_of_memory, reporting_out_of_memory
from tests import tiny

RED, BLUE = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (90, 60), "blue")


@pytest.fixture(scope="module")
def pipe(tiny_weights: Path) -> KosmosGPipeline:
    return KosmosGPipeline.from_pretrained(tiny_weights)


def draw(pipe: KosmosGPipeline, prompt: Any = "<i> on the beach", images: Any = None, **options):
    if images is None and isinstance(prompt, str):
        images = [RED] * prompt.count("<i>")
    settings: dict[str, Any] = {"num_inference_steps": 2, "seed": 5} | options
    return pipe(prompt, images, **settings)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(pixels(one) - pixels(other)).max())


# ------------------------------------------------------------------ seeds


def test_image_n_is_that_of_seed_plus_n(pipe: KosmosGPipeline) -> None:
    together = draw(pipe, num_images_per_prompt=3)
    assert together.seeds == [5, 6, 7]
    for image, seed in zip(together.images, together.seeds, strict=True):
        assert difference(image, draw(pipe, seed=seed).images[0]) <= 1
    assert difference(*together.images[:2]) > 8


def test_the_same_after_any_other_request(pipe: KosmosGPipeline) -> None:
    first = draw(pipe)
    draw(pipe, "a cat", scheduler="DDIM", negative_prompt="red", seed=9)
    draw(pipe, "<i> and <i>", [RED, BLUE], width=72, scheduler="PNDM", num_images_per_prompt=2)
    with pytest.raises(PromptError):
        draw(pipe, "<i>", [])
    assert difference(first.images[0], draw(pipe).images[0]) == 0


def test_seeds_wrap_around(pipe: KosmosGPipeline) -> None:
    assert draw(pipe, seed=2**32 - 1, num_images_per_prompt=2).seeds == [2**32 - 1, 0]


def test_a_random_seed_is_reported_and_draws_the_same_again(pipe: KosmosGPipeline) -> None:
    first, second = draw(pipe, seed=None), draw(pipe, seed=None)
    assert first.seeds != second.seeds
    assert difference(first.images[0], draw(pipe, seed=first.seeds[0]).images[0]) == 0


def test_noise_depends_on_the_seed_alone() -> None:
    noise = draw_noise([3, 4], 4, 8, 6)
    assert noise.dtype == torch.float32
    torch.testing.assert_close(noise[1:], draw_noise([4], 4, 8, 6), atol=0, rtol=0)


# ------------------------------------------------------------------ prompts and images


def test_several_prompts_are_grouped(pipe: KosmosGPipeline) -> None:
    prompts, images = ["a dog", "<i> on <i>"], [[], [RED, BLUE]]
    found = draw(pipe, prompts, images, num_images_per_prompt=2)
    assert [recipe["prompt"] for recipe in found.recipes] == ["a dog"] * 2 + ["<i> on <i>"] * 2
    alone = draw(pipe, "<i> on <i>", [RED, BLUE], seed=8)
    assert difference(found.images[3], alone.images[0]) <= 1


def test_order_and_content_of_images_matter(pipe: KosmosGPipeline) -> None:
    one, _ = pipe.encode_prompt("<i> on <i>", [RED, BLUE])
    other, _ = pipe.encode_prompt("<i> on <i>", [BLUE, RED])
    assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize("negative", [None, "", "  "])
def test_no_negative_prompt_is_the_null_condition(pipe: KosmosGPipeline, negative: Any) -> None:
    _, found = pipe.encode_prompt("a dog", negative_prompt=negative)
    torch.testing.assert_close(found, pipe.encoder.null_condition(), atol=0, rtol=0)


def test_a_negative_prompt_changes_the_image_only_with_guidance(pipe: KosmosGPipeline) -> None:
    options = [{"negative_prompt": "red"}, {"negative_prompt": ""}]
    with_guidance = [draw(pipe, "a dog", **each).images[0] for each in options]
    without = [draw(pipe, "a dog", guidance_scale=1, **each).images[0] for each in options]
    assert difference(*with_guidance) > 0
    assert difference(*without) == 0


def test_negative_prompts_one_for_each(pipe: KosmosGPipeline) -> None:
    _, found = pipe.encode_prompt(["a dog", "a cat"], negative_prompt=["", "red"])
    _, red = pipe.encode_prompt("a cat", negative_prompt="red")
    torch.testing.assert_close(found[1:], red, atol=0, rtol=0)
    torch.testing.assert_close(found[:1], pipe.encoder.null_condition(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("prompt", "images", "negative"),
    [
        (["a", "b"], [[]], None),
        ([], [], None),
        (["a", "b"], None, ["x", "y", "z"]),
        ("<i>", None, None),
        ("a", [RED], None),
        (["<i>", "<i>"], RED, None),
        (["<i>", "<i>"], [RED], None),
    ],
)
def test_numbers_that_do_not_fit(pipe: KosmosGPipeline, prompt, images, negative) -> None:
    with pytest.raises(PromptError):
        pipe.encode_prompt(prompt, images, negative)


def test_one_image_needs_no_list(pipe: KosmosGPipeline) -> None:
    listed, _ = pipe.encode_prompt(["<i>", "a cat", "<i>"], [[RED], [], [BLUE]])
    bare, _ = pipe.encode_prompt(["<i>", "a cat", "<i>"], [RED, [], BLUE])
    torch.testing.assert_close(bare, listed, atol=0, rtol=0)
    one, _ = pipe.encode_prompt("<i>", RED)
    torch.testing.assert_close(one, pipe.encode_prompt("<i>", [RED])[0], atol=0, rtol=0)


@pytest.mark.parametrize("wrong", [[None], "cat.jpg", [np.zeros((8, 8, 3))]])
def test_what_is_no_image(pipe: KosmosGPipeline, wrong: Any) -> None:
    with pytest.raises(PromptError, match=r"Image 1 .* PIL\.Image\.open"):
        pipe.encode_prompt("<i>", wrong)


def test_conditions_can_be_learned_from(tiny_weights: Path) -> None:
    """Whatever was drawn before, in whatever mode."""
    pipe = KosmosGPipeline.from_pretrained(tiny_weights)
    draw(pipe)
    scale = torch.ones((), requires_grad=True)
    for condition in pipe.encode_prompt("<i>", RED):
        (condition * scale).square().sum().backward()
    assert scale.grad


def test_markers_in_a_negative_prompt_are_text(pipe: KosmosGPipeline) -> None:
    _, found = pipe.encode_prompt("a dog", negative_prompt="<i>")
    assert found.shape == (1, 77, 32)


def test_the_null_condition_is_computed_once(tiny_weights: Path) -> None:
    pipe = KosmosGPipeline.from_pretrained(tiny_weights)
    calls = []
    pipe.kosmosg.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        pipe.encode_prompt("a dog", negative_prompt="")
    assert len(calls) == 3 + 1


def load_other_weights(model: KosmosG) -> None:
    model.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()})


def learn(model: KosmosG) -> None:
    model.requires_grad_(True)
    model.null_condition().square().sum().backward()
    torch.optim.AdamW(model.parameters(), lr=0.01).step()


def put_lora_on(model: KosmosG) -> None:
    config = LoraConfig(target_modules=["v_proj"], init_lora_weights=False)
    inject_adapter_in_model(config, model.kosmos2.text_model)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.to(torch.bfloat16),
        lambda model: model.aligner.to(torch.bfloat16).float(),
        load_other_weights,
        learn,
        put_lora_on,
    ],
)
def test_the_null_condition_follows_the_weights(tiny_weights: Path, change: Any) -> None:
    pipe = KosmosGPipeline.from_pretrained(tiny_weights)
    _, before = pipe.encode_prompt("a dog")
    assert pipe.encoder.null_condition() is pipe.encoder.null_condition()
    change(pipe.kosmosg)
    _, found = pipe.encode_prompt("a dog")
    with torch.no_grad():
        torch.testing.assert_close(found, pipe.kosmosg.null_condition(), atol=0, rtol=0)
    assert (found - before).abs().max() > 0


def test_each_different_negative_prompt_is_encoded_once(tiny_weights: Path) -> None:
    pipe = KosmosGPipeline.from_pretrained(tiny_weights)
    calls = []
    pipe.kosmosg.register_forward_hook(lambda *_: calls.append(1))
    pipe.encode_prompt(["a dog", "a cat", "a hat"], negative_prompt="red")
    assert len(calls) == 1 + 1
    pipe.encode_prompt(["a dog", "a cat", "a hat"], negative_prompt=["red", "blue", "red"])
    assert len(calls) == 2 + 1 + 2


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 100}, "width is 100 pixels; it must be a multiple of 8. Try 96 or 104"),
        ({"height": 65}, "height is 65 pixels"),
        ({"width": 0}, "width is 0"),
        ({"width": float("nan")}, "width must be a number"),
        ({"height": 1e9}, "height is 1000000000"),
        ({"width": "64"}, "width must be a number"),
        ({"width": 64.5}, "whole number"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"seed": True}, "seed must be a number"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"guidance_scale": 0.5}, "guidance_scale is 0.5"),
        ({"guidance_scale": float("inf")}, "guidance_scale"),
        ({"scheduler": "Heun"}, "'Heun' is unknown. Choose one of DPMSolverMultistep"),
    ],
)
def test_settings_out_of_bounds(pipe: KosmosGPipeline, options: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        draw(pipe, **options)


def test_sizes(pipe: KosmosGPipeline) -> None:
    assert draw(pipe).images[0].size == (64, 64)
    assert draw(pipe, width=96, height=72.0).images[0].size == (96, 72)


@pytest.mark.parametrize("scheduler", list(SAMPLERS))
def test_progress_counts_to_the_end(pipe: KosmosGPipeline, scheduler: str) -> None:
    seen: list[tuple[int, int]] = []
    draw(pipe, scheduler=scheduler, num_inference_steps=4, progress=lambda *x: seen.append(x))
    total = seen[0][1]
    assert seen == [(step + 1, total) for step in range(total)]


def test_recipes_make_the_image_again(pipe: KosmosGPipeline) -> None:
    found = draw(pipe, "a red dog", num_images_per_prompt=2, width=72, negative_prompt="blue")
    recipe = dict(found.recipes[1])
    again = pipe(recipe.pop("prompt"), None, recipe.pop("negative_prompt"), **recipe)
    assert difference(found.images[1], again.images[0]) <= 1


# ------------------------------------------------------------------ the decoder stays diffusers'


def test_conditions_fit_a_plain_stable_diffusion_pipeline(pipe: KosmosGPipeline) -> None:
    """Any pipeline that takes prompt_embeds draws the same image."""
    condition, negative = pipe.encode_prompt("<i> on the beach", [RED])
    plain: Any = StableDiffusionPipeline.from_pipe(
        pipe,
        text_encoder=None,
        tokenizer=None,
        scheduler=DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading"),
        requires_safety_checker=False,
    )
    plain.set_progress_bar_config(disable=True)
    drawn = plain(
        prompt_embeds=condition,
        negative_prompt_embeds=negative,
        latents=draw_noise([5], 4, 32, 32),
        num_inference_steps=2,
        guidance_scale=6.0,
    ).images[0]
    ours = draw(pipe, scheduler="DDIM", guidance_scale=6.0).images[0]
    assert difference(drawn, ours) <= 1


def test_a_saved_pipeline_draws_the_same(pipe: KosmosGPipeline, tmp_path: Path) -> None:
    draw(pipe, scheduler="DDIM")
    pipe.save_pretrained(tmp_path / "w")
    assert not list((tmp_path / "w").rglob("*.bin"))
    again = KosmosGPipeline.from_pretrained(find_weights(tmp_path / "w"))
    for scheduler in SAMPLERS:
        one, other = (draw(p, scheduler=scheduler, num_inference_steps=4) for p in (pipe, again))
        assert difference(one.images[0], other.images[0]) == 0, scheduler


def test_bfloat16_draws_nearly_the_same(pipe: KosmosGPipeline, tiny_weights: Path) -> None:
    half = KosmosGPipeline.from_pretrained(tiny_weights, torch_dtype=torch.bfloat16)
    assert difference(draw(pipe).images[0], draw(half).images[0]) <= 24


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    sizes = tiny.SIZES | {"aligner": tiny.SIZES["aligner"] | {"dim": 48}}
    tiny.write_weights(tmp_path / "a")
    tiny.write_weights(tmp_path / "b", sizes=sizes)
    (tmp_path / "b" / "unet").rename(tmp_path / "other")
    (tmp_path / "a" / "unet").rename(tmp_path / "b" / "unet")
    with pytest.raises(WeightsError, match="48 wide, but the U-Net takes 32"):
        KosmosGPipeline.from_pretrained(tmp_path / "b")


def test_a_tokenizer_of_another_model(tiny_weights: Path, tmp_path: Path) -> None:
    pipe = KosmosGPipeline.from_pretrained(tiny_weights)
    pipe.tokenizer = tiny.write_tokenizer(tmp_path, 300)
    with pytest.raises(WeightsError, match="tokenizer has 300 entries, but the language model 320"):
        draw(pipe)


# ------------------------------------------------------------------ memory


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the denoiser fail as a full GPU does, for more rows than the list's first entry."""
    limit = [8]
    denoise = sampling.denoise

    def limited(decoder, request, report=None):
        if len(request) > limit[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return denoise(decoder, request, report)

    monkeypatch.setattr(sampling, "denoise", limited)
    yield limit


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_chunks_draw_the_same_images(
    pipe: KosmosGPipeline, memory_for: list[int], limit: int
) -> None:
    whole = draw(pipe, num_images_per_prompt=5)
    memory_for[0] = limit
    seen: list[tuple[int, int]] = []
    chunked = draw(pipe, num_images_per_prompt=5, progress=lambda *x: seen.append(x))
    assert len(chunked.images) == 5
    assert max(map(difference, whole.images, chunked.images)) <= 1
    assert seen[-1][0] == seen[-1][1]


def test_progress_ends_at_the_end_when_memory_shrinks_on_the_way(
    pipe: KosmosGPipeline, memory_for: list[int]
) -> None:
    memory_for[0] = 3
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        memory_for[0] = 1

    found = draw(pipe, num_images_per_prompt=5, progress=progress)
    assert len(found.images) == 5
    assert seen[-1][0] == seen[-1][1]
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)


def test_not_even_one_fits(pipe: KosmosGPipeline, memory_for: list[int]) -> None:
    memory_for[0] = 0
    with pytest.raises(OutOfMemoryError, match=r"64 × 64 pixels does not fit .*smaller"):
        draw(pipe, num_images_per_prompt=4)
    memory_for[0] = 8
    assert draw(pipe).images


def test_memory_is_given_back(
    pipe: KosmosGPipeline, memory_for: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr("kosmosg.utils.memory.free_memory", lambda: calls.append(1))
    memory_for[0] = 1
    draw(pipe, num_images_per_prompt=2)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
    with (
        pytest.raises(OutOfMemoryError if expected else type(error)),
        reporting_out_of_memory("It"),
    ):
        raise error


def test_a_real_failed_allocation_is_recognised() -> None:
    with pytest.raises(OutOfMemoryError), reporting_out_of_memory("It does not"):
        torch.empty(2**55)


def test_values_that_are_not_finite(tiny_weights: Path) -> None:
    pipe = KosmosGPipeline.from_pretrained(tiny_weights)
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="not finite"):
        draw(pipe)


def test_images_reach_the_model_in_the_order_of_the_markers(
    pipe: KosmosGPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "kosmosg.models.encoder.collate",
        lambda tokens, pixels: seen.extend(pixels) or collate(tokens, pixels),
    )
    pipe.encode_prompt(["<i> on <i>", "a dog", "<i>"], [[RED, BLUE], [], [RED]])
    size = pipe.kosmosg.image_size
    for found, image in zip(seen, [RED, BLUE, RED], strict=True):
        np.testing.assert_array_equal(found, clip_pixels(image, size))

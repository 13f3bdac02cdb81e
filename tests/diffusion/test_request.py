"""Requests: numbers within bounds, seeds and sizes that are left open, what metadata say."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg import Control, GenerationRequest, InitImage, KosmosGPipeline
from kosmosg.errors import SettingError
from tests.diffusion.generation import difference, generate


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_images_per_prompt", 0, "num_images_per_prompt is 0"),
        ("num_inference_steps", 1000, "num_inference_steps is 1000; it must be from 1 to 999"),
        ("guidance_scale", "6", "guidance_scale must be a number"),
        ("seed", 2**32, "seed is 4294967296"),
        ("seed", "5", "seed must be a number"),
    ],
)
def test_numbers_are_checked_at_once(name: str, value: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        GenerationRequest(prompt="a cat", **{name: value})


def test_a_seed_that_is_left_open_is_chosen_once() -> None:
    requests = [GenerationRequest(prompt="a cat") for _ in range(4)]
    assert len({request.seed for request in requests}) > 1
    assert requests[0].sized(default=64, multiple=8).seed == requests[0].seed


def test_a_strength_that_leaves_no_step() -> None:
    init = InitImage(image=Image.new("RGB", (8, 8)), strength=0.1)
    with pytest.raises(SettingError, match=r"Give at least 0\.250"):
        GenerationRequest(prompt="a cat", init=init, num_inference_steps=4)


def test_a_guide_gives_the_proportions_up_to_a_bound() -> None:
    control = Control(kind="canny", image=Image.new("RGB", (64, 512)))
    request = GenerationRequest(prompt="a cat", control=control, width=128)
    sized = request.sized(default=64, multiple=8)
    assert (sized.width, sized.height) == (128, 1024)
    assert (request.width, request.height) == (128, None)
    with pytest.raises(SettingError, match=r"control_image has 64 × 512.* 1000 at most"):
        request.sized(default=64, multiple=8, largest=1000)


def test_numbers_of_numpy(pipe: KosmosGPipeline) -> None:
    numbers: dict[str, Any] = {"seed": np.int64(5), "num_inference_steps": np.int32(4)}
    numbers |= {"guidance_scale": np.float32(6), "width": np.uint8(64)}
    result = pipe("a cat", **numbers)
    assert difference(result.images[0], generate(pipe)) == 0
    plain = {type(value) for value in result.recipes[0].values()}
    assert plain == {str, int, float}


def test_the_call_is_a_request(pipe: KosmosGPipeline) -> None:
    request = GenerationRequest(prompt="a cat", num_inference_steps=4, seed=5)
    result = pipe.generate(request, check_safety=False)
    assert difference(result.images[0], generate(pipe)) == 0
    assert result.recipes == pipe("a cat", num_inference_steps=4, seed=5).recipes

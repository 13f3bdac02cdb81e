"""Weights of single images, and strips from one image to another."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kosmosg import KosmosGPipeline
from kosmosg.cli import main as cli
from kosmosg.diffusion.interpolation import interpolate
from kosmosg.errors import SettingError
from kosmosg.serving.metadata import read_recipe
from tests.diffusion.generation import difference, generate, noise_image

ONE, OTHER = noise_image(seed=1), noise_image(seed=2)
GREY = Image.new("RGB", (64, 64), (123, 117, 104))  # CLIP's mean colour


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


# ------------------------------------------------------------------ weights of images


def test_full_weights_are_no_weights(pipe: KosmosGPipeline) -> None:
    plain, _ = pipe.encode_prompt("<i> and <i>", [ONE, OTHER])
    weighted, _ = pipe.encode_prompt("<i> and <i>", [ONE, OTHER], image_weights=[1, 1])
    assert distance(plain, weighted) < 1e-5


def test_no_weight_is_an_even_grey_image(pipe: KosmosGPipeline) -> None:
    grey, _ = pipe.encode_prompt("<i> and <i>", [GREY, OTHER])
    weighted, _ = pipe.encode_prompt("<i> and <i>", [ONE, OTHER], image_weights=[0, 1])
    plain, _ = pipe.encode_prompt("<i> and <i>", [ONE, OTHER])
    # Not equal: levels of 255 do not meet CLIP's mean.
    assert distance(grey, weighted) < distance(plain, weighted) / 2


def test_weights_count_over_all_prompts(pipe: KosmosGPipeline) -> None:
    both, _ = pipe.encode_prompt(["a <i>", "<i> cat"], [[ONE], [OTHER]], image_weights=[0.5, 2])
    for row, (text, image, weight) in enumerate([("a <i>", ONE, 0.5), ("<i> cat", OTHER, 2)]):
        alone, _ = pipe.encode_prompt(text, [image], image_weights=[weight])
        assert distance(both[row : row + 1], alone) < 1e-5


def test_weights_reach_the_image_and_its_recipe(pipe: KosmosGPipeline) -> None:
    result = pipe("<i>", [ONE], num_inference_steps=4, seed=5, image_weights=[0])
    assert result.recipes[0]["image_weights"] == [0]
    assert difference(result.images[0], generate(pipe, "<i>", images=[ONE])) > 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1], "1 image weights for 2 images"), ([1, 4], "image weight is 4"), ([1, "2"], "number")],
)
def test_weights_that_do_not_fit(pipe: KosmosGPipeline, weights: list, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        pipe.encode_prompt("<i> and <i>", [ONE, OTHER], image_weights=weights)


# ------------------------------------------------------------------ from one to another


def test_conditions_in_between() -> None:
    found = interpolate(torch.zeros(2, 3), torch.ones(2, 3), 5)
    for frame, share in zip(found, (0.0, 0.25, 0.5, 0.75, 1.0), strict=True):
        assert distance(frame, torch.full((2, 3), share)) == 0


def test_a_strip_begins_with_one_and_ends_with_the_other(
    pipe: KosmosGPipeline, own_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, image in (("a", ONE), ("b", OTHER)):
        image.save(tmp_path / f"{name}.png")
    ends = [str(tmp_path / f"{name}.png") for name in "ab"]
    output = tmp_path / "new" / "mix.png"
    arguments = ["--frames", "4", "--inference-steps", "4", "--seed", "5", "--output", str(output)]
    assert cli.main(["mix", *ends, *arguments, "--weights", str(own_weights)]) == 0
    assert capsys.readouterr().out == f"{output} (seed 5)\n"
    strip = Image.open(output)
    assert strip.size == (4 * 64, 64)
    frames = [strip.crop((64 * n, 0, 64 * (n + 1), 64)) for n in range(4)]
    for frame, image in ((frames[0], ONE), (frames[3], OTHER)):
        assert difference(frame, generate(pipe, "<i>", images=[image])) <= 1
    assert len({np.asarray(frame).tobytes() for frame in frames}) == 4
    recipe = read_recipe(output)
    assert (recipe["prompt"], recipe["seed"], recipe["frames"]) == ("<i>", 5, 4)
    found = [hashlib.sha256(Path(end).read_bytes()).hexdigest() for end in ends]
    assert recipe["images"] == [f"sha256:{digest}" for digest in found]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "1"], "--frames is 1; it must be from 2 to 64"),
        (["--prompt", "a cat"], "exactly one <i>"),
        (["--prompt", "<i> and <i>"], "exactly one <i>"),
        (["--output", "mix.gif"], "the suffix must be one of"),
        (["--weights", "nowhere"], "There are no weights in nowhere"),
    ],
)
def test_mistakes(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    ONE.save(tmp_path / "a.png")
    image = str(tmp_path / "a.png")
    assert cli.main(["mix", image, image, *arguments]) == 1
    assert message in capsys.readouterr().err

"""``generate``: from words to files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmosg.cli import main as cli
from kosmosg.serving.metadata import read_recipe

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8))


def generate(*arguments: object) -> int:
    return cli.main(["generate", "--steps", "1", *map(str, arguments)])


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_generate(
    tiny_weights: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture
) -> None:
    IMAGE.save(tmp_path / "in.png")
    output = tmp_path / "new" / f"out.{suffix}"
    arguments = ["--prompt", "<i> on the beach", "--image", tmp_path / "in.png", "--seed", 4]
    assert generate(*arguments, "--output", output, "--weights", tiny_weights) == 0
    assert capsys.readouterr().out == f"{output} (seed 4)\n"
    with Image.open(output) as image:
        assert image.size == (64, 64)
    recipe = read_recipe(output)
    assert (recipe["prompt"], recipe["seed"]) == ("<i> on the beach", 4)


def test_several_images_get_numbers(tiny_weights: Path, tmp_path: Path) -> None:
    arguments = ["--prompt", "a dog", "--num-images", 3, "--weights", tiny_weights, "--seed", 1]
    assert generate(*arguments, "--output", tmp_path / "out.png") == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"out-{n}.png" for n in range(3)]
    assert [read_recipe(tmp_path / f"out-{n}.png")["seed"] for n in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "<i>"], "1 <i> marker, but 0 input images"),
        (["--prompt", "<i>", "--image", "none.png"], "none.png cannot be read"),
        (["--prompt", "a", "--output", "out.gif"], "the suffix must be one of"),
        (["--prompt", "a", "--width", "100"], "width is 100"),
        (["--prompt", "a", "--weights", "nowhere"], "There are no weights in nowhere"),
    ],
)
def test_mistakes(
    tiny_weights: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    weights = [] if "--weights" in arguments else ["--weights", tiny_weights]
    assert generate(*arguments, *weights) == 1
    captured = capsys.readouterr().err
    assert captured.splitlines()[-1].startswith("error: ")
    assert message in captured


def test_generate_with_techniques(tiny_weights: Path, tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "in.png")
    mask = Image.new("L", IMAGE.size)
    mask.paste(255, (0, 0, 24, 32))
    mask.save(tmp_path / "mask.png")
    output = tmp_path / "out.png"
    start = ["--init-image", tmp_path / "in.png", "--init-mask", tmp_path / "mask.png"]
    arguments = ["--prompt", "a dog", "--weights", tiny_weights, "--output", output]
    assert generate(*arguments, *start, "--prompt-strength", 1, "--scheduler", "Euler") == 0
    recipe = read_recipe(output)
    assert recipe["prompt_strength"] == 1
    assert recipe["init_mask"].startswith("sha256:")
    with Image.open(output) as image:
        assert image.size == (64, 40)
        kept = IMAGE.resize(image.size, Image.Resampling.LANCZOS)
        assert (np.asarray(image)[:, 32:] == np.asarray(kept)[:, 32:]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lora", "none.safetensors"], "none.safetensors is not a safetensors file"),
        (["--lora", "none.safetensors", "--lora-scale", "11"], "scale is 11"),
        (["--init-mask", "in.png"], "--init-mask needs --init-image"),
        (["--control-image", "in.png", "--control-type", "mlsd"], "download controlnet mlsd"),
        (["--control-image", "in.png", "--control-scale", "3"], "control_scale is 3"),
    ],
)
def test_mistakes_with_techniques(
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
) -> None:
    IMAGE.save(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    assert generate("--prompt", "a", "--weights", tiny_weights, *arguments) == 1
    assert message in capsys.readouterr().err

"""The command line and the files it writes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kosmosg.cli import main as cli
from kosmosg.errors import ImageError
from kosmosg.serving.metadata import read_recipe, save_image

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8))


def generate(*arguments: object) -> int:
    return cli.main(["generate", "--steps", "1", *map(str, arguments)])


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_generate(
    tiny_weights: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture
) -> None:
    PICTURE.save(tmp_path / "in.png")
    output = tmp_path / "new" / f"out.{suffix}"
    arguments = ["--prompt", "<i> on the beach", "--image", tmp_path / "in.png", "--seed", 4]
    assert generate(*arguments, "--output", output, "--weights", tiny_weights) == 0
    assert capsys.readouterr().out == f"{output} (seed 4)\n"
    with Image.open(output) as image:
        assert image.size == (64, 64)
    recipe = read_recipe(output)
    assert (recipe["prompt"], recipe["seed"]) == ("<i> on the beach", 4)


def test_several_pictures_get_numbers(tiny_weights: Path, tmp_path: Path) -> None:
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


def test_help_needs_no_torch() -> None:
    """Importing it takes seconds."""
    program = (
        "import sys, kosmosg.cli.main, miniature.__main__ as miniature\n"
        "for main in (kosmosg.cli.main.main, miniature.main):\n"
        "    try: main(['train', '--help'])\n"
        "    except SystemExit: pass\n"
        "assert not {'torch', 'PIL', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_download_of_a_manifest_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["download", "--manifest", str(tmp_path / "m.toml")]) == 1
    assert "error: " in capsys.readouterr().err
    assert cli.main(["download", "--url", "no-equals-sign"]) == 1
    assert "write NAME=URL" in capsys.readouterr().err


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
@pytest.mark.parametrize("prompt", ["a dog", "naïve 猫 🎉", "x" * 40_000, "\ud800", 'a "b" \\ \n'])
def test_metadata(tmp_path: Path, suffix: str, prompt: str) -> None:
    path = tmp_path / f"out.{suffix}"
    save_image(PICTURE, path, quality=80, recipe={"prompt": prompt, "seed": 2**32 - 1})
    found = read_recipe(path)
    assert found["seed"] == 2**32 - 1
    assert found["prompt"] == prompt[:4000].replace("\ud800", " ")
    with Image.open(path) as image:
        assert image.size == PICTURE.size


@pytest.mark.parametrize("character", ["\x01", "🎉", "\n", '"', "\u2028", "猫"])
def test_metadata_never_grows_too_long(tmp_path: Path, character: str) -> None:
    """A JPEG's EXIF block has 64 KB; a picture that was drawn must not be lost to it."""
    recipe = {"prompt": character * 40_000, "negative_prompt": character * 40_000, "seed": 1}
    path = save_image(PICTURE, tmp_path / "out.jpg", quality=80, recipe=recipe)
    assert read_recipe(path)["seed"] == 1


def test_quality(tmp_path: Path) -> None:
    for suffix in ("webp", "jpg", "png"):
        sizes = []
        for quality in (0, 50, 100):
            path = save_image(PICTURE, tmp_path / f"o.{suffix}", quality=quality, recipe={})
            sizes.append(path.stat().st_size)
        assert sizes == sorted(sizes)
        assert (len(set(sizes)) == 1) == (suffix == "png"), "png ignores the quality"


def test_a_picture_without_recipe(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "plain.png")
    with pytest.raises(ImageError, match="does not say how"):
        read_recipe(tmp_path / "plain.png")


def test_generate_with_techniques(tiny_weights: Path, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "in.png")
    mask = Image.new("L", PICTURE.size)
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
        kept = PICTURE.resize(image.size, Image.Resampling.LANCZOS)
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
    PICTURE.save(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    assert generate("--prompt", "a", "--weights", tiny_weights, *arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(_: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr("kosmosg.cli.convert.New.run", fill)
    assert cli.main(["new", "w", "--tokenizer", "t", "--stable-diffusion", "s"]) == 1
    assert capsys.readouterr().err == "error: No space left on device.\n"

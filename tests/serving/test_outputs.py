"""What comes back: files, their metadata, seeds, logs and metrics."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.serving.metadata import read_recipe
from tests.serving.client import SMALL, Server, encode, files, photo, pixels, url

# How clients of the platform find the progress in a log.
PROGRESS = re.compile(r"^\s*(\d+)%\s*\|.+?\|\s*(\d+)/(\d+)")
MAX_SEED = 2**32 - 1


def recipe(content: bytes, output_format: str, folder: Path) -> dict[str, Any]:
    file = folder / f"output.{output_format}"
    file.write_bytes(content)
    return read_recipe(file)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("output_format", "kind", "mime"),
    [("webp", "WEBP", "webp"), ("jpg", "JPEG", "jpeg"), ("png", "PNG", "png")],
)
def test_format(server: Server, tmp_path: Path, output_format: str, kind: str, mime: str) -> None:
    answer = server.answer(
        output_format=output_format, width=128, height=72, num_images=2, prompt='a "猫"', seed=7
    )
    assert all(sent.startswith(f"data:image/{mime};base64,") for sent in answer["output"])
    for number, content in enumerate(files(answer)):
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert (image.format, image.size, image.mode) == (kind, (128, 72), "RGB")
        found = recipe(content, output_format, tmp_path)
        assert (found["prompt"], found["seed"]) == ('a "猫"', 7 + number)


def test_default_format(server: Server) -> None:
    inputs = {key: value for key, value in SMALL.items() if key != "output_format"}
    (content,) = files(server.post({"input": inputs}).json())
    assert Image.open(io.BytesIO(content)).format == "WEBP"


@pytest.mark.parametrize("output_format", ["webp", "jpg"])
def test_quality(server: Server, output_format: str) -> None:
    """More quality takes more bytes and comes closer to the lossless image."""
    exact = server.generate(width=128, height=128).astype(int)
    sizes, errors = [], []
    for quality in (0, 50, 100):
        answer = server.answer(
            width=128, height=128, output_format=output_format, output_quality=quality
        )
        sizes.append(len(files(answer)[0]))
        errors.append(np.abs(pixels(answer) - exact).mean())
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)


def test_recipe_makes_the_image_again(server: Server, tmp_path: Path) -> None:
    answer = server.answer(
        prompt="a dog in snow",
        negative_prompt="hat",
        num_images=2,
        seed=5,
        width=72,
        num_inference_steps=2,
        text_guidance_scale=3.5,
        guidance_end=0.5,
        scheduler="DDIM",
    )
    found = recipe(files(answer)[1], "png", tmp_path)
    again = server.generate(
        prompt=found["prompt"],
        negative_prompt=found["negative_prompt"],
        num_images=found["num_images_per_prompt"],
        seed=found["seed"],
        width=found["width"],
        height=found["height"],
        num_inference_steps=found["num_inference_steps"],
        text_guidance_scale=found["guidance_scale"],
        guidance_end=found["guidance_end"],
        scheduler=found["scheduler"],
    )
    assert np.abs(again[0].astype(int) - pixels(answer)[1]).max() <= 1


def test_recipe_names_the_files_that_were_sent(server: Server, tmp_path: Path) -> None:
    sent = {
        name: encode(photo(seed, (48, 48))) for seed, name in enumerate(("image1", "init_image"))
    }
    urls = {name: url(file) for name, file in sent.items()}
    answer = server.answer(prompt="<i>", prompt_strength=1, **urls)
    found = recipe(files(answer)[0], "png", tmp_path)
    digests = {name: f"sha256:{hashlib.sha256(file).hexdigest()}" for name, file in sent.items()}
    assert found["images"] == [digests["image1"]]
    assert found["init_image"] == digests["init_image"]


# ------------------------------------------------------------------ seeds


@pytest.mark.parametrize("seed", [0, 1, 2**31, MAX_SEED - 1, MAX_SEED])
@pytest.mark.parametrize("sent", [{}, {"prompt": "<i>", "image1": url(photo())}], ids=["", "image"])
def test_image_n_has_seed_plus_n(server: Server, seed: int, sent: dict[str, Any]) -> None:
    """Alone or in a batch: matrix products of other shapes round differently, by a level at most.

    On the machines tried so far the pixels were equal.
    """
    together = server.generate(num_images=3, seed=seed, num_inference_steps=2, **sent)
    assert len({image.tobytes() for image in together}) == 3
    for number, image in enumerate(together):
        alone = server.generate(seed=(seed + number) % 2**32, num_inference_steps=2, **sent)
        assert np.abs(image.astype(int) - alone[0]).max() <= 1


def test_seeds_begin_again_at_zero(server: Server, tmp_path: Path) -> None:
    contents = files(server.answer(num_images=3, seed=MAX_SEED - 1))
    seeds = [recipe(content, "png", tmp_path)["seed"] for content in contents]
    assert seeds == [MAX_SEED - 1, MAX_SEED, 0]


def test_same_request_again(server: Server) -> None:
    """Whatever came in between, the very same pixels."""
    request: dict[str, Any] = {
        "prompt": "<i> in <i>",
        "image1": url(photo(1)),
        "image2": url(photo(2)),
        "num_images": 2,
        "num_inference_steps": 3,
    }
    first = server.generate(**request)
    server.generate(num_images=3, width=128, seed=9)
    server.generate(scheduler="PNDM", num_inference_steps=4, text_guidance_scale=1)
    server.refuse(prompt="<i>")
    server.generate(prompt="<i>", image1=url(photo(3)), negative_prompt="snow", scheduler="DDIM")
    np.testing.assert_array_equal(server.generate(**request), first)


def test_random_seed(server: Server, tmp_path: Path) -> None:
    """Without a seed the images differ, and log and metadata say how to get them again."""
    inputs = {key: value for key, value in SMALL.items() if key != "seed"}
    answers = [server.post({"input": inputs}).json() for _ in range(3)]
    seeds = [int(re.findall(r"^seed: (\d+)$", answer["logs"], re.M)[0]) for answer in answers]
    assert len(set(seeds)) == 3
    for seed, answer in zip(seeds, answers, strict=True):
        assert recipe(files(answer)[0], "png", tmp_path)["seed"] == seed
        np.testing.assert_array_equal(pixels(answer), server.generate(seed=seed))


@pytest.mark.parametrize(("seed", "logged"), [(0, "0"), (MAX_SEED, str(MAX_SEED)), (7.0, "7")])
def test_seed_in_the_log(server: Server, seed: float, logged: str) -> None:
    assert server.answer(seed=seed)["logs"].splitlines()[0] == f"seed: {logged}"


# ------------------------------------------------------------------ log and metrics


@pytest.mark.parametrize(
    ("inputs", "steps"),
    [
        ({"num_inference_steps": 1}, 1),
        ({"num_inference_steps": 7}, 7),
        ({"num_inference_steps": 13, "num_images": 2}, 13),
        ({"num_inference_steps": 3, "scheduler": "DDIM"}, 3),
        ({"num_inference_steps": 1, "scheduler": "PNDM"}, 1),
        ({"num_inference_steps": 5, "scheduler": "PNDM"}, 6),  # it repeats its second step
    ],
)
def test_progress(server: Server, inputs: dict[str, Any], steps: int) -> None:
    """A line for each step, in the form that clients read, up to 100 %."""
    logs = server.answer(**inputs)["logs"]
    assert "\r" not in logs
    assert logs.endswith("\n")
    lines = [line for line in logs.splitlines() if "%" in line]
    matches = [PROGRESS.match(line) for line in lines]
    found = [tuple(map(int, match.groups())) for match in matches if match]
    assert len(found) == len(lines)
    assert [done for _, done, _ in found] == list(range(1, steps + 1))
    assert {total for _, _, total in found} == {steps}
    assert [percent for percent, _, _ in found] == [n * 100 // steps for n in range(1, steps + 1)]
    assert logs.splitlines()[-1] == lines[-1]


def test_metrics(server: Server) -> None:
    metrics = server.answer(num_images=3)["metrics"]
    assert metrics["image_output_count"] == 3
    parts = [metrics[f"{part}_seconds"] for part in ("encode", "denoise", "decode")]
    assert all(part > 0 for part in parts)
    assert sum(parts) <= metrics["predict_time"]


def test_outputs_of_the_last_request_only(server: Server) -> None:
    """Nothing of a request is left once the next has begun."""
    server.generate(num_images=3)
    kept = server.leftovers()
    assert [path.name for path in kept] == [f"{n}-seed-{n + 1}.png" for n in range(3)]
    server.generate(seed=8)
    assert [path.name for path in server.leftovers()] == ["0-seed-8.png"]
    assert len(list(server.temporary.glob("kosmosg-*"))) == 1


def test_log_of_one_request_only(server: Server) -> None:
    """No request's log holds lines of another's."""
    for seed in (11, 12):
        logs = server.answer(seed=seed)["logs"]
        assert re.findall(r"seed: (\d+)", logs) == [str(seed)]

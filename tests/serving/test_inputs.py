"""What callers may send besides images: prompts, numbers, names, and files that are none."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.client import SMALL, Server, files, photo, url

IMAGE = url(photo())
PASSWORDS = Path("/etc/passwd")


def contains(message: str, words: tuple[str, ...]) -> None:
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} not in: {message}"


# ------------------------------------------------------------------ prompts


@pytest.mark.parametrize(
    ("prompt", "images", "words"),
    [
        ("<i>", 0, ("1 <i> marker,", "0 input images")),
        ("a cat", 1, ("0 <i> markers", "1 input image ")),
        ("<i> and <i> and <i>", 2, ("3 <i> markers", "2 input images")),
        ("<i>", 4, ("1 <i> marker,", "4 input images")),
        ("<I> < i >", 1, ("0 <i> markers", "1 input image ")),
    ],
)
def test_markers_and_images_differ(
    server: Server, prompt: str, images: int, words: tuple[str, ...]
) -> None:
    named = {f"image{n + 1}": IMAGE for n in range(images)}
    contains(server.refuse(prompt=prompt, **named), (*words, "once for each image"))


def test_image_under_an_unknown_name(server: Server) -> None:
    """Cog drops inputs that it does not know, so the message is all that the caller hears."""
    message = server.refuse(prompt="<i>", image=IMAGE)
    contains(message, ("1 <i> marker", "0 input images", "image1"))
    assert re.search("other name|unknown|ignored|dropped", message), message


def test_no_inputs_at_all(server: Server) -> None:
    """The default prompt is a marker."""
    contains(server.refused(server.post("{}")), ("1 <i> marker", "image1"))


@pytest.mark.parametrize("prompt", ["", " ", "\n\t \u3000"])
def test_blank_prompt(server: Server, prompt: str) -> None:
    contains(server.refuse(prompt=prompt), ("prompt is empty", "Write what to draw"))


def test_prompt_with_too_many_tokens(server: Server) -> None:
    message = server.refuse(prompt="a dog " * 6667)  # 40 000 characters
    contains(message, ("prompt", "tokens", "at most 512", "Shorten"))


def test_negative_prompt_with_too_many_tokens(server: Server) -> None:
    contains(server.refuse(negative_prompt="a dog " * 6667), ("tokens", "at most 512", "Shorten"))


@pytest.mark.parametrize(
    "prompt",
    ["a\x00cat", "50%|███| 1/2\r\n100%|███| 2/2", "猫 🐈 \u202e", "</s><pad><image>", "a" * 300],
)
@pytest.mark.parametrize("output_format", ["png", "jpg", "webp"])
def test_odd_prompts(server: Server, prompt: str, output_format: str) -> None:
    server.generate(prompt=prompt, negative_prompt=prompt, output_format=output_format)


@pytest.mark.parametrize("filling", ["\x01", '"', "\n", "🐈"], ids=ascii)
def test_long_prompts_fit_into_a_jpeg(server: Server, filling: str) -> None:
    """They go into its metadata, which ends at 64 KB."""
    text = "a" + filling * 7_999
    server.generate(prompt=text, negative_prompt=text, output_format="jpg")


# ------------------------------------------------------------------ numbers and choices


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"width": 100}, ("width is 100", "multiple of 8", "96 or 104")),
        ({"width": 65}, ("width is 65", "64 or 72")),
        ({"height": 1020}, ("height is 1020", "1016 or 1024")),
        ({"width": 1e9}, ("width", "maximum of 1024")),
        ({"width": 1032}, ("width", "maximum of 1024")),
        ({"height": 0}, ("height", "minimum of 64")),
        ({"width": -8}, ("width", "minimum of 64")),
        ({"width": "512"}, ("width", "integer")),
        ({"width": None}, ("width", "integer")),
        ({"width": True}, ("width", "integer")),
        ({"seed": -1}, ("seed", "minimum of 0")),
        ({"seed": 4294967296}, ("seed", "maximum of 4294967295")),
        ({"seed": 0.5}, ("seed", "integer")),
        ({"seed": False}, ("seed", "integer")),
        ({"num_images": 0}, ("num_images", "minimum of 1")),
        ({"num_images": 9}, ("num_images", "maximum of 8")),
        ({"num_images": 1.5}, ("num_images", "integer")),
        ({"num_images": True}, ("num_images", "integer")),
        ({"num_inference_steps": 0}, ("num_inference_steps", "minimum of 1")),
        ({"num_inference_steps": 251}, ("num_inference_steps", "maximum of 250")),
        ({"num_inference_steps": [1]}, ("num_inference_steps", "integer")),
        ({"text_guidance_scale": 0.99}, ("text_guidance_scale", "minimum of 1")),
        ({"text_guidance_scale": 20.1}, ("text_guidance_scale", "maximum of 20")),
        ({"text_guidance_scale": "6"}, ("text_guidance_scale", "number")),
        ({"text_guidance_scale": True}, ("text_guidance_scale", "number")),
        ({"guidance_end": -0.1}, ("guidance_end", "minimum of 0")),
        ({"guidance_end": 1.1}, ("guidance_end", "maximum of 1")),
        ({"output_quality": -1}, ("output_quality", "minimum of 0")),
        ({"output_quality": 101}, ("output_quality", "maximum of 100")),
        ({"output_quality": 90.5}, ("output_quality", "integer")),
        ({"disable_safety_checker": 1}, ("disable_safety_checker", "boolean")),
        ({"scheduler": "Heun"}, ("scheduler", "DPMSolverMultistep", "DDIM", "PNDM")),
        ({"scheduler": "ddim"}, ("scheduler", "DDIM")),
        ({"output_format": "gif"}, ("output_format", "webp", "jpg", "png")),
        ({"prompt": 5}, ("prompt", "string")),
        ({"image1": 5}, ("image1", "string")),
        ({"image1": [IMAGE]}, ("image1", "string")),
        ({"images": IMAGE}, ("images", "array")),
        ({"images": [None]}, ("images/0", "string")),
    ],
    ids=lambda case: json.dumps(case)[:40],
)
def test_refused_value(server: Server, inputs: dict[str, Any], words: tuple[str, ...]) -> None:
    contains(server.refuse(**inputs), words)


@pytest.mark.parametrize(
    "body",
    ['{"input":{"width":NaN}}', '{"input":{"seed":Infinity}}', '{"input":', "[]", "", '"text"'],
)
def test_malformed_body(server: Server, body: str) -> None:
    response = server.post(body)
    assert response.status_code in (400, 422)
    assert "JSON" in server.refused(response)


@pytest.mark.parametrize(
    ("inputs", "same"),
    [
        ({"width": 64.0, "height": 64.0}, {}),
        ({"num_images": 2.0}, {"num_images": 2}),
        ({"num_inference_steps": 2.0}, {"num_inference_steps": 2}),
        ({"seed": 1.0}, {}),
        ({"text_guidance_scale": 6}, {"text_guidance_scale": 6.0}),
        ({"output_quality": 0}, {}),  # has no say in PNG
        ({"output_quality": 100}, {}),
        ({"image": IMAGE, "image5": IMAGE, "steps": "many", "": None}, {}),  # unknown names
        ({"negative_prompt": "  "}, {"negative_prompt": ""}),
        ({"images": []}, {}),
    ],
    ids=lambda case: json.dumps(case)[:40],
)
def test_accepted_value(server: Server, inputs: dict[str, Any], same: dict[str, Any]) -> None:
    np.testing.assert_array_equal(server.generate(**inputs), server.generate(**same))


def test_width_as_a_float(server: Server) -> None:
    assert server.generate(width=512.0).shape == (1, 64, 512, 3)


def test_size_left_blank(server: Server) -> None:
    """The size that the decoder was trained at."""
    inputs = {key: value for key, value in SMALL.items() if key not in ("width", "height")}
    answer = server.post({"input": inputs}).json()
    assert answer["status"] == "succeeded"
    np.testing.assert_array_equal(
        np.stack([np.frombuffer(file, np.uint8) for file in files(answer)]),
        np.stack([np.frombuffer(file, np.uint8) for file in files(server.answer())]),
    )


@pytest.mark.parametrize("scheduler", ["DPMSolverMultistep", "DDIM", "PNDM"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_schedulers(server: Server, scheduler: str, steps: int) -> None:
    server.generate(scheduler=scheduler, num_inference_steps=steps)


def test_inputs_have_an_effect(server: Server) -> None:
    """Each of them changes the image, so that equal images mean something."""
    changes: list[dict[str, Any]] = [
        {},
        {"prompt": "a dog"},
        {"prompt": "a <i>", "image1": IMAGE},
        {"negative_prompt": "snow"},
        {"text_guidance_scale": 1},
        {"text_guidance_scale": 20},
        {"seed": 2},
        {"num_inference_steps": 2},
        {"num_inference_steps": 2, "scheduler": "DDIM"},
        {"num_inference_steps": 2, "scheduler": "PNDM"},
        {"num_inference_steps": 2, "guidance_end": 0.5},
    ]
    found = [server.generate(**change).tobytes() for change in changes]
    assert len(set(found)) == len(found)


# ------------------------------------------------------------------ files that are none


@pytest.mark.parametrize(
    "value",
    ["/etc/passwd", "file:///etc/passwd", "predict.py", "./predict.py", "ftp://h/a.png", "~"],
)
@pytest.mark.parametrize("place", ["image1", "images[0]", "images[1]"])
def test_path_of_the_server(server: Server, place: str, value: str) -> None:
    """No text that is sent makes the server open its own files."""
    sent = {
        "image1": {"image1": value, "prompt": "<i>"},
        "images[0]": {"images": [value], "prompt": "<i>"},
        "images[1]": {"images": ["", value], "prompt": "<i>"},
    }[place]
    response = server.post({"input": SMALL | sent})
    contains(server.refused(response), (place, "must be sent as a file", "data URL"))
    first_line = PASSWORDS.read_text().splitlines()[0]
    assert first_line not in response.text
    assert first_line not in server.log.read_text()


@pytest.mark.parametrize("inputs", [{"image1": ""}, {"images": [""]}, {"images": ["", ""]}])
def test_empty_text_counts_as_not_given(server: Server, inputs: dict[str, Any]) -> None:
    np.testing.assert_array_equal(server.generate(**inputs), server.generate())
    contains(server.refuse(prompt="<i>", **inputs), ("0 input images",))


@pytest.mark.parametrize("images", [["", IMAGE], [IMAGE, ""]])
def test_empty_text_beside_an_image(server: Server, images: list[str]) -> None:
    """Cog fetches nothing of a list in which one entry is no URL."""
    message = server.refuse(prompt="<i>", images=images)
    contains(message, ("images[", "did not arrive as a file", "Leave empty entries out"))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/predict.py", "http://127.0.0.1:9/.."])
def test_address_named_like_a_file_of_the_server(server: Server, address: str) -> None:
    """An address that Cog did not fetch is not taken for a path in the working directory."""
    message = server.refuse(prompt="<i>", images=["", address])
    assert "not an image" not in message
    assert "directory" not in message

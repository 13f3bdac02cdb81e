"""What is filled in becomes a request as the server takes it."""

import json
from pathlib import Path

import pytest

from kosmosg.demo import form, layout
from kosmosg.serving.request_file import read_request, write_request
from tests.conftest import ROOT

SCHEMAS = json.loads((ROOT / "tests" / "contract.json").read_text())["components"]["schemas"]
INPUTS = SCHEMAS["Input"]["properties"]
A, B = Path("/a.png"), Path("/b.png")


def test_the_defaults_are_those_of_the_server() -> None:
    images = {*form.NAMED_IMAGES, form.FURTHER_IMAGES}
    assert {*form.DEFAULTS} == {*INPUTS} - images
    for name, default in form.DEFAULTS.items():
        assert INPUTS[name].get("default") == default, name


def test_the_sliders_end_where_the_server_refuses() -> None:
    for name, most in (
        ("num_inference_steps", layout.MOST_STEPS),
        ("num_images", layout.MOST_IMAGES),
        ("text_guidance_scale", layout.MOST_GUIDANCE),
    ):
        assert (INPUTS[name]["minimum"], INPUTS[name]["maximum"]) == (1, most)
    assert SCHEMAS["output_format"]["enum"] == list(layout.FORMATS)


def test_what_is_as_usual_is_left_out() -> None:
    values = {**form.DEFAULTS, "prompt": "a <i>", "num_images": 1, "seed": 7, "width": None}
    assert form.collect(values, [A]) == {
        "image1": A,
        "prompt": "a <i>",
        "num_images": 1,
        "num_inference_steps": 50,
        "text_guidance_scale": 6.0,
        "seed": 7,
    }
    # The server tells what is wrong with an empty prompt.
    assert form.collect({"prompt": ""}, [])["prompt"] == ""


def test_six_images_have_names() -> None:
    images = [Path(f"/{n}.png") for n in range(6)]
    inputs = form.name_images(images)
    assert [*inputs] == ["image1", "image2", "image3", "image4", "images"]
    assert [file for _, file in form.list_images(inputs)] == images
    assert form.list_images(inputs)[-1][0] == "images[1]"


def test_a_request_as_a_file_and_as_a_line(tmp_path: Path) -> None:
    image = tmp_path / "my cat.png"
    image.write_bytes(b"content")
    inputs = {"image1": image, "prompt": "a <i>'s hat", "control_preprocess": False, "seed": 1}
    assert form.as_request(inputs)["input"]["image1"] == "@my cat.png"
    assert form.as_command(inputs).split(" \\\n    ") == [
        "cog predict",
        "-i image1='@my cat.png'",
        """-i prompt='a <i>'"'"'s hat'""",
        "-i control_preprocess=false",
        "-i seed=1",
    ]
    write_request(inputs, tmp_path / "request.json")
    image.unlink()  # the file needs no other
    read = read_request(tmp_path / "request.json")
    assert read["image1"] == "data:image/png;base64,Y29udGVudA=="
    assert read["prompt"] == inputs["prompt"]


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ("The prompt has 2 <i> markers, but 0 input images came with it.", "prompt"),
        ("image1 is an empty file. Send an image (JPEG, PNG, WebP, …).", "prompt"),
        ("images[0] has 2 × 900 pixels", "prompt"),
        ("prompt_strength 0.01 of 4 steps leaves no step to take.", "init"),
        ("init_mask needs init_image, which it acts on.", "init"),
        ("lora_scale needs lora_weights, which it acts on.", "lora"),
        ("control_image has 4 × 400 pixels, which does not fit images of 64 × 64.", "control"),
        ("There is no ControlNet for 'depth' in weights/controlnet/depth.", "control"),
        ("width is 65 pixels; it must be a multiple of 8. Try 64 or 72.", "settings"),
        ("One image of 8 × 8 pixels does not fit into the memory that is free.", "settings"),
    ],
)
def test_an_error_belongs_somewhere(message: str, place: str) -> None:
    assert form.place_of(message) == place

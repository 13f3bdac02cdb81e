"""What is filled in on the page → the inputs of a request, by the names of the server."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from kosmosg.diffusion.settings import (
    CONTROL_SCALE,
    CONTROL_TYPES,
    DEFAULT_GUIDANCE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    GUIDANCE_END,
    LORA_SCALE,
    PROMPT_STRENGTH,
)

# What the server takes for an input that is left out; those without an entry must be given.
DEFAULTS: dict[str, Any] = {
    "prompt": "<i>",
    "negative_prompt": "",
    "text_guidance_scale": DEFAULT_GUIDANCE,
    "guidance_end": GUIDANCE_END,
    "num_inference_steps": DEFAULT_STEPS,
    "num_images": 4,
    "width": None,
    "height": None,
    "scheduler": DEFAULT_SAMPLER,
    "lora_weights": None,
    "lora_scale": LORA_SCALE,
    "control_image": None,
    "control_type": CONTROL_TYPES[0],
    "control_preprocess": True,
    "control_scale": CONTROL_SCALE,
    "init_image": None,
    "init_mask": None,
    "prompt_strength": PROMPT_STRENGTH,
    "seed": None,
    "output_format": "webp",
    "output_quality": 90,
    "disable_safety_checker": False,
}
# Always written out, so that a request says what it is without knowing the defaults.
ALWAYS = ("prompt", "num_images", "num_inference_steps", "text_guidance_scale")
NAMED_IMAGES = ("image1", "image2", "image3", "image4")
FURTHER_IMAGES = "images"

Place = Literal["prompt", "lora", "control", "init", "settings"]
# An error belongs to the first of these that its message names.
_PLACES = re.compile(
    r"(?P<init>\binit_(image|mask)\b|\bprompt_strength\b)"
    r"|(?P<lora>\blora_\w+|\bLoRA\b)"
    r"|(?P<control>\bcontrol_\w+|\bControlNet\b)"
    r"|(?P<prompt>\bprompt\b|\bnegative_prompt\b|\bimage\d\b|\bimages\b)",
    re.IGNORECASE,
)


def collect(values: Mapping[str, Any], images: Sequence[Path]) -> dict[str, Any]:
    """Make the inputs of a request; what equals its default is left out.

    Args:
        values: What is filled in, by the names of the server; files as paths.
        images: The images of the prompt, in the order of its markers.
    """
    inputs = name_images(images)
    for name, default in DEFAULTS.items():
        value = values.get(name, default)
        if value == "" and default is not None:
            value = default if name != "prompt" else ""
        if name in ALWAYS or value != default:
            inputs[name] = value
    return inputs


def name_images(images: Sequence[Path]) -> dict[str, Any]:
    """Give the images of a prompt the names that the server has for them."""
    inputs: dict[str, Any] = dict(zip(NAMED_IMAGES, images, strict=False))
    if further := list(images[len(NAMED_IMAGES) :]):
        inputs[FURTHER_IMAGES] = further
    return inputs


def list_images(inputs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Pair the images of the prompt with what to call them, in the order of the markers."""
    named = [(name, inputs[name]) for name in NAMED_IMAGES if inputs.get(name)]
    further = inputs.get(FURTHER_IMAGES) or []
    return named + [(f"{FURTHER_IMAGES}[{n}]", image) for n, image in enumerate(further)]


def settings(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """All inputs but the images of the prompt, the defaults of the server filled in."""
    return {name: inputs.get(name, default) for name, default in DEFAULTS.items()}


def as_request(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Write a request as a request file has it, with ``@name`` in place of each file."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(item) for item in value]
        return f"@{value.name}" if isinstance(value, Path) else value

    return {"input": {name: short(value) for name, value in inputs.items()}}


def as_command(inputs: Mapping[str, Any]) -> str:
    """Write a request as a line for ``cog predict``, whose files are in the working directory."""
    words = []
    for name, value in as_request(inputs)["input"].items():
        for each in value if isinstance(value, list) else [value]:
            text = str(each).lower() if isinstance(each, bool) else str(each)
            words.append(f"-i {name}={shlex.quote(text)}")
    return " \\\n    ".join(["cog predict", *words])


def place_of(message: str) -> Place:
    """Find the part of the page that an error is about, from the inputs that it names."""
    found = _PLACES.search(message)
    return found.lastgroup if found and found.lastgroup else "settings"  # type: ignore[return-value]

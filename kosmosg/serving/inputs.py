"""The inputs of a request: which of them are files, and what belongs together.

The server hands over whatever came under a name. Text is never taken for a path.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from kosmosg.diffusion.control import Control
from kosmosg.diffusion.init_image import InitImage
from kosmosg.diffusion.lora import LoRA
from kosmosg.diffusion.request import GenerationRequest
from kosmosg.diffusion.settings import (
    CONTROL_SCALE,
    CONTROL_TYPES,
    GUIDANCE_END,
    LORA_SCALE,
    PROMPT_STRENGTH,
    refuse_alone,
)
from kosmosg.errors import ImageError, KosmosGError, LoRAError, PromptError
from kosmosg.prompts.images import open_image


def read_request(
    images: Iterable[tuple[str, Any]],
    *,
    prompt: str,
    negative_prompt: str,
    text_guidance_scale: float,
    num_inference_steps: int,
    num_images: int,
    width: int | None,
    height: int | None,
    scheduler: str,
    seed: int | None,
    guidance_end: float = GUIDANCE_END,
    lora_weights: Any = None,
    lora_scale: float = LORA_SCALE,
    control_image: Any = None,
    control_type: str = CONTROL_TYPES[0],
    control_preprocess: bool = True,
    control_scale: float = CONTROL_SCALE,
    init_image: Any = None,
    init_mask: Any = None,
    prompt_strength: float = PROMPT_STRENGTH,
) -> GenerationRequest:
    """Make a request of what the caller sent, by the names that ``predict.py`` describes.

    The images of the prompt are pairs of an input's name and its value, in the order of the
    markers. Their values, and whatever is ``Any``, should be files, and may be whatever came.

    Raises:
        PromptError: If the prompt is empty.
        SettingError: If a setting is out of bounds or has nothing to act on.
        ImageError: If an image is no file, cannot be opened, or does not fit another.
        LoRAError: If the LoRA is no file.
    """
    opened = read_images(images)
    if not prompt.strip():
        raise PromptError("prompt is empty. Write what to draw, with <i> for an input image.")
    return GenerationRequest(
        prompt=prompt,
        images=opened,
        negative_prompt=negative_prompt,
        num_images_per_prompt=num_images,
        num_inference_steps=num_inference_steps,
        guidance_scale=text_guidance_scale,
        guidance_end=guidance_end,
        width=width,
        height=height,
        scheduler=scheduler,
        seed=seed,
        lora=_read_lora(lora_weights, lora_scale),
        control=_read_control(control_image, control_type, control_preprocess, control_scale),
        init=_read_init(init_image, init_mask, prompt_strength),
    )


def _read_lora(value: Any, scale: float) -> LoRA | None:
    file = find_file("lora_weights", value, LoRAError)
    if file is None:
        refuse_alone("lora_weights", {"lora_scale": (scale, LORA_SCALE)})
        return None
    return LoRA(file=file, scale=scale, name="lora_weights")


def _read_control(value: Any, kind: str, preprocess: bool, scale: float) -> Control | None:
    image = read_image("control_image", value, keep_alpha=True)
    if image is None:
        settings = {
            "control_type": (kind, CONTROL_TYPES[0]),
            "control_preprocess": (preprocess, True),
            "control_scale": (scale, CONTROL_SCALE),
        }
        refuse_alone("control_image", settings)
        return None
    return Control(kind=kind, image=image, preprocess=preprocess, scale=scale)


def _read_init(value: Any, mask_value: Any, strength: float) -> InitImage | None:
    image = read_image("init_image", value, keep_alpha=True)
    mask = read_image("init_mask", mask_value, keep_alpha=True)
    if image is None:
        settings = {
            "init_mask": (mask and "given", None),
            "prompt_strength": (strength, PROMPT_STRENGTH),
        }
        refuse_alone("init_image", settings)
        return None
    return InitImage(image=image, mask=mask, strength=strength)


def read_images(images: Iterable[Any]) -> list[Image.Image]:
    """Open the images of a request.

    Args:
        images: Pairs of an input's name and its value. ``None`` and ``""`` are not given.

    Raises:
        ImageError: If a value is no file, or the file no image.
    """
    opened = (read_image(name, value) for name, value in images)
    return [image for image in opened if image is not None]


def read_image(name: str, value: Any, *, keep_alpha: bool = False) -> Image.Image | None:
    """Open one image of a request, if it was given; see ``open_image``.

    Raises:
        ImageError: If the value is no file, or the file no image.
    """
    file = find_file(name, value)
    return None if file is None else open_image(file, name, keep_alpha=keep_alpha)


def find_file(name: str, value: Any, error: type[KosmosGError] = ImageError) -> Path | None:
    """Take an input that the server turned into a file; ``None`` and ``""`` are not given.

    Args:
        name: The input's name, for errors.
        value: What came under it.
        error: What to raise.

    Raises:
        KosmosGError: If the value is no file.
    """
    if value is None or value == "":
        return None
    # The server turns uploads, data URLs and http(s) URLs into files. Text that reaches us as
    # it was sent is a path of this machine or another scheme, which must not be opened.
    if not isinstance(value, os.PathLike):
        raise error(
            f"{name} must be sent as a file: an upload, a data URL or an http(s) URL, not "
            f"{str(value)[:80]!r}."
        )
    # A list with an entry that is no URL is left unfetched as a whole; what should be a file
    # is then the last part of a URL, which must not be looked up in the working directory.
    if not Path(value).is_absolute():
        raise error(f"{name} did not arrive as a file. Leave empty entries out of a list.")
    return Path(value)

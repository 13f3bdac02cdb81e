"""The numbers of a request, within their bounds."""

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from kosmosg.errors import SettingError
from kosmosg.utils.checks import check_integer, check_number

DEFAULT_STEPS = 50
SamplerName = Literal[
    "DPMSolverMultistep", "DDIM", "PNDM", "UniPC", "Euler", "EulerAncestral", "KarrasDPM", "LCM"
]
SAMPLER_NAMES: tuple[SamplerName, ...] = get_args(SamplerName)
DEFAULT_SAMPLER = SAMPLER_NAMES[0]
DEFAULT_GUIDANCE = 6.0
MAX_SEED = 2**32 - 1
MAX_SIDE = 8192  # pixels
LORA_SCALE = 1.0
CONTROL_SCALE = 1.0
PROMPT_STRENGTH = 0.8
ControlType = Literal[
    "canny", "depth", "openpose", "scribble", "softedge", "segmentation",
    "normal", "lineart", "lineart_anime", "mlsd", "shuffle", "ip2p",
]  # fmt: skip
CONTROL_TYPES: tuple[ControlType, ...] = get_args(ControlType)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides an image besides prompt, images and weights; all within bounds.

    Attributes:
        num_images_per_prompt: At least 1.
        num_inference_steps: 1 to 999; the training schedule has 1000 and DPM-Solver fails at all.
        guidance_scale: At least 1; 1 switches guidance off.
        width: In pixels.
        height: In pixels.
        scheduler: A name in ``schedulers.SAMPLERS``, or of a class of diffusers.
    """

    num_images_per_prompt: int
    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int
    scheduler: str

    @classmethod
    def check(
        cls,
        *,
        num_images_per_prompt: Any,
        num_inference_steps: Any,
        guidance_scale: Any,
        size: tuple[int, int],
        scheduler: str,
    ) -> "Settings":
        """Check what a user gave.

        Width and height, chosen before, are taken as they are.

        Raises:
            SettingError: Naming the setting, its value and the bounds.
        """
        return cls(
            num_images_per_prompt=check_integer(
                "num_images_per_prompt", num_images_per_prompt, 1, 10_000
            ),
            num_inference_steps=check_integer("num_inference_steps", num_inference_steps, 1, 999),
            guidance_scale=check_number("guidance_scale", guidance_scale, 1, 1000),
            width=size[0],
            height=size[1],
            scheduler=scheduler,
        )

    def recipe(self, seed: int) -> dict[str, Any]:
        """What makes one image again besides its prompt, for the metadata of its file."""
        return asdict(self) | {"num_images_per_prompt": 1, "seed": seed}


def choose_seeds(seed: Any, images: int) -> list[int]:
    """Choose the seeds of all images: those given, or counting up from one (modulo 2³²).

    Args:
        seed: One for each image, or that of the first, or ``None`` for a random one.
        images: Their number.

    Raises:
        SettingError: If one is out of bounds, or there is not one for each image.
    """
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if len(seed) != images:
            raise SettingError(
                f"There are {len(seed)} seeds for {images} images. Give one for each, or that of "
                "the first image alone."
            )
        return [check_integer("seed", each, 0, MAX_SEED) for each in seed]
    first = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
    first = check_integer("seed", first, 0, MAX_SEED)
    return [(first + n) % (MAX_SEED + 1) for n in range(images)]


def check_side(name: str, value: Any, multiple: int, largest: int = MAX_SIDE) -> int:
    """Check a width or height in pixels.

    Raises:
        SettingError: Naming the nearest sides that are allowed.
    """
    side = check_integer(name, value, multiple, largest)
    if side % multiple:
        below = side // multiple * multiple
        raise SettingError(
            f"{name} is {side} pixels; it must be a multiple of {multiple}. Try {below} or "
            f"{below + multiple}."
        )
    return side

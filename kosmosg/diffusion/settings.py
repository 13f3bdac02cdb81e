"""The numbers of a request, within their bounds."""

import secrets
from dataclasses import asdict, dataclass
from typing import Any

from kosmosg.errors import SettingError
from kosmosg.utils.checks import check_integer, check_number

DEFAULT_STEPS = 50
SAMPLER_NAMES = (
    *("DPMSolverMultistep", "DDIM", "PNDM", "UniPC"),
    *("Euler", "EulerAncestral", "KarrasDPM", "LCM"),
)
DEFAULT_SAMPLER = SAMPLER_NAMES[0]
DEFAULT_GUIDANCE = 6.0
MAX_SEED = 2**32 - 1
MAX_SIDE = 8192  # pixels
LORA_SCALE = 1.0
CONTROL_SCALE = 1.0
PROMPT_STRENGTH = 0.8
CONTROL_TYPES = (
    *("canny", "depth", "openpose", "scribble", "softedge", "segmentation"),
    *("normal", "lineart", "lineart_anime", "mlsd", "shuffle", "ip2p"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides a picture besides prompt, images and weights; all within bounds.

    Attributes:
        num_images_per_prompt: At least 1.
        num_inference_steps: 1 to 999; the training schedule has 1000 and DPM-Solver fails at all.
        guidance_scale: At least 1; 1 switches guidance off.
        width: In pixels.
        height: In pixels.
        scheduler: A name in ``schedulers.SAMPLERS``, or of a class of diffusers.
        seed: Seed of the first picture.
    """

    num_images_per_prompt: int
    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int
    scheduler: str
    seed: int

    @classmethod
    def check(
        cls,
        *,
        num_images_per_prompt: Any,
        num_inference_steps: Any,
        guidance_scale: Any,
        size: tuple[int, int],
        scheduler: str,
        seed: Any,
    ) -> "Settings":
        """Check what a user gave. A seed of ``None`` is drawn at random.

        Width and height, chosen before, are taken as they are.

        Raises:
            SettingError: Naming the setting, its value and the bounds.
        """
        seed = secrets.randbelow(MAX_SEED + 1) if seed is None else seed
        return cls(
            num_images_per_prompt=check_integer(
                "num_images_per_prompt", num_images_per_prompt, 1, 10_000
            ),
            num_inference_steps=check_integer("num_inference_steps", num_inference_steps, 1, 999),
            guidance_scale=check_number("guidance_scale", guidance_scale, 1, 1000),
            width=size[0],
            height=size[1],
            scheduler=scheduler,
            seed=check_integer("seed", seed, 0, MAX_SEED),
        )

    def seeds(self, prompts: int) -> list[int]:
        """Seeds of all pictures, counting up from the first (modulo 2³²)."""
        count = prompts * self.num_images_per_prompt
        return [(self.seed + n) % (MAX_SEED + 1) for n in range(count)]

    def recipe(self, prompt: str, negative_prompt: str, seed: int) -> dict[str, Any]:
        """Everything that makes one picture again, for the metadata of its file."""
        settings = asdict(self) | {"num_images_per_prompt": 1, "seed": seed}
        return {"prompt": prompt, "negative_prompt": negative_prompt, **settings}


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

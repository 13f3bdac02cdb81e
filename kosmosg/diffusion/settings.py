"""The numbers of a request: defaults, bounds, seeds and sizes."""

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from kosmosg.errors import SettingError
from kosmosg.utils.checks import check_integer

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_STEPS = 50
SamplerName = Literal[
    "DPMSolverMultistep",
    "DDIM",
    "PNDM",
    "UniPC",
    "Euler",
    "EulerAncestral",
    "KarrasDPM",
    "LCM",
    "TCD",
]
SAMPLER_NAMES: tuple[SamplerName, ...] = get_args(SamplerName)
DEFAULT_SAMPLER = SAMPLER_NAMES[0]
DEFAULT_GUIDANCE = 6.0
GUIDANCE_END = 1.0
MAX_SEED = 2**32 - 1
MAX_SIDE = 8192  # pixels
MAX_ASPECT = 8  # beyond it the shorter side has too few latents to hold anything
LORA_SCALE = 1.0
CONTROL_SCALE = 1.0
PROMPT_STRENGTH = 0.8
FEWEST_FRAMES, MOST_FRAMES = 2, 64  # of a strip from one image to another
ControlType = Literal[
    "canny", "depth", "openpose", "scribble", "softedge", "segmentation",
    "normal", "lineart", "lineart_anime", "mlsd", "shuffle", "ip2p",
]  # fmt: skip
CONTROL_TYPES: tuple[ControlType, ...] = get_args(ControlType)


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


def refuse_alone(needed: str, settings: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse settings that differ from their defaults: they were meant, and would be lost.

    Args:
        needed: The input that they act on, which was not given.
        settings: Value and default of each, by name.

    Raises:
        SettingError: Naming the first.
    """
    for name, (value, default) in settings.items():
        if value != default:
            raise SettingError(
                f"{name} needs {needed}, which it acts on. Give {needed}, or leave {name} out."
            )


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


def choose_size(
    width: int | None,
    height: int | None,
    *,
    default: int,
    multiple: int,
    guides: Mapping[str, "Image.Image"],
    largest: int = MAX_SIDE,
) -> tuple[int, int]:
    """Choose width and height in pixels.

    A side that is not given is ``default``, unless an image fixes the layout: then the image's
    proportions are kept, with ``default`` as the longer side if neither is given.

    Args:
        width: What was asked for, or ``None``.
        height: Likewise.
        default: The side that the decoder was trained at.
        multiple: What both sides are a multiple of.
        guides: Control and initial images, by what to call them in errors.
        largest: Bound of both sides, also of one that a guide gives.

    Raises:
        SettingError: If sides are out of bounds, or do not have a guide's proportions.
    """
    width = None if width is None else check_side("width", width, multiple, largest)
    height = None if height is None else check_side("height", height, multiple, largest)
    for name, guide in guides.items():
        short, long = sorted(guide.size)
        if long > MAX_ASPECT * short:
            raise SettingError(
                f"{name} has {guide.width} × {guide.height} pixels: one side is more than "
                f"{MAX_ASPECT} times the other. Cut it closer to a square."
            )
        wanted = _fit(guide, width, height, default, multiple)
        if width is None and height is None:
            width, height = wanted
        width, height = width or wanted[0], height or wanted[1]
        if max(width, height) > largest:
            raise SettingError(
                f"{name} has {guide.width} × {guide.height} pixels. In its proportions the result "
                f"would have {width} × {height}, and a side may have {largest} at most. Ask for "
                "a smaller width or height."
            )
        if abs(width - wanted[0]) > multiple or abs(height - wanted[1]) > multiple:
            raise SettingError(
                f"{name} has {guide.width} × {guide.height} pixels, which does not fit images of "
                f"{width} × {height}. Give sides of one proportion, such as {wanted[0]} × "
                f"{wanted[1]}, or cut it to shape."
            )
    return width or default, height or default


def _fit(
    guide: "Image.Image", width: int | None, height: int | None, default: int, multiple: int
) -> tuple[int, int]:
    """Find the sides closest to an image's proportions, with those that are given kept."""

    def near(side: float) -> int:
        return max(multiple, round(side / multiple) * multiple)

    ratio = guide.width / guide.height
    if height is None and width is not None:
        return width, near(width / ratio)
    if height is not None and width is None:
        return near(height * ratio), height
    longer = default if width is None or height is None else max(width, height)
    if ratio >= 1:
        return near(longer), near(longer / ratio)
    return near(longer * ratio), near(longer)

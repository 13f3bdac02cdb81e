"""What stands in a model's place where it does not matter which one generates."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from zlib import crc32

import pytest
from PIL import Image

from kosmosg.evaluation.run import ImageSettings
from tests.evaluation.fabricated import photograph

SIDE = 48


def paint(
    prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
) -> list[Image.Image]:
    """Make images that depend on prompt, input images, seed and, as rounding does, neighbours."""
    neighbours = crc32(repr([list(prompts), list(seeds)]).encode())
    made = []
    for prompt, inputs, seed in zip(prompts, images, seeds, strict=True):
        asked = crc32(repr((prompt, seed, [crc32(each.tobytes()) for each in inputs])).encode())
        image = photograph(asked, (SIDE, SIDE))
        image.putpixel((0, 0), tuple(neighbours.to_bytes(4, "big")[:3]))
        made.append(image)
    return made


@contextmanager
def painting() -> Iterator[None]:
    """Put it into the place of every model, whose own folder is not opened to generate."""
    generator: Callable[..., object] = lambda settings: paint  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageSettings, "generator", generator)
        yield

"""The size of images: what is asked for, and the proportions of what guides them."""

import pytest
from PIL import Image

from kosmosg.diffusion.settings import choose_size
from kosmosg.errors import SettingError


def choose(
    width: int | None = None, height: int | None = None, *guides: tuple[int, int]
) -> tuple[int, int]:
    named = {f"guide{n}": Image.new("RGB", size) for n, size in enumerate(guides)}
    return choose_size(width, height, default=512, multiple=8, guides=named)


@pytest.mark.parametrize(
    ("asked", "size"), [((None, None), (512, 512)), ((256, None), (256, 512)), ((64, 96), (64, 96))]
)
def test_without_guides(asked: tuple, size: tuple[int, int]) -> None:
    assert choose(*asked) == size


@pytest.mark.parametrize(
    ("asked", "guide", "size"),
    [
        ((None, None), (1, 1), (512, 512)),
        ((None, None), (8000, 8000), (512, 512)),
        ((None, None), (3000, 2000), (512, 344)),
        ((None, None), (200, 300), (344, 512)),
        ((768, None), (300, 200), (768, 512)),
        ((None, 256), (200, 300), (168, 256)),
        ((512, 344), (300, 200), (512, 344)),
        ((512, 336), (300, 200), (512, 336)),  # nearly
        ((512, 512), (640, 636), (512, 512)),
    ],
)
def test_a_guide_gives_its_proportions(
    asked: tuple, guide: tuple[int, int], size: tuple[int, int]
) -> None:
    assert choose(*asked, guide) == size


@pytest.mark.parametrize(
    ("asked", "guides", "message"),
    [
        ((512, 512), [(300, 200)], "guide0 has 300 × 200 .* 512 × 512.* such as 512 × 344"),
        ((None, None), [(300, 200), (200, 300)], "guide1 has 200 × 300"),
        ((None, None), [(900, 100)], "more than 8 times"),
        ((8192, None), [(64, 512)], "guide0 has 64 × 512 .* 8192 × 65536, .* 8192 at most"),
        ((None, 8192), [(200, 100)], "16384 × 8192"),
        ((100, None), [], "multiple of 8"),
        ((None, 0), [], "height"),
    ],
)
def test_what_does_not_fit(asked: tuple, guides: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        choose(*asked, *guides)


def test_guides_of_one_proportion_agree() -> None:
    assert choose(None, None, (300, 200), (1500, 1000)) == (512, 344)

"""A prompt and its images stay together."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmosg.demo import prompt_editor
from kosmosg.prompts.prompt import MARKER

A, B, C = Path("a.png"), Path("b.png"), Path("c.png")


@pytest.mark.parametrize(
    ("text", "images", "cursor", "wanted", "order"),
    [
        ("", [], 0, "<i>", [C]),
        ("a  in the snow", [], 2, "a <i> in the snow", [C]),
        ("in the snow", [], 0, "<i> in the snow", [C]),
        ("on the beach", [], 12, "on the beach <i>", [C]),
        ("a dog.", [], 5, "a dog <i>.", [C]),
        ("<i> on <i>", [A, B], 4, "<i> <i> on <i>", [A, C, B]),
        ("<i> on <i>", [A, B], 1, "<i> <i> on <i>", [A, C, B]),  # inside a marker: behind it
        ("<i>", [A], 99, "<i> <i>", [A, C]),
    ],
)
def test_an_image_stands_where_the_cursor_is(
    text: str, images: list[Path], cursor: int, wanted: str, order: list[Path]
) -> None:
    found, files = prompt_editor.insert(text, images, cursor, [C])
    assert (" ".join(found.split()), files) == (wanted, order)


@given(text=st.text("<i> ab", max_size=30), cursor=st.integers(0, 40), number=st.integers(1, 3))
def test_every_image_gets_a_marker(text: str, cursor: int, number: int) -> None:
    images = [Path(f"{n}.png") for n in range(text.count(MARKER))]
    found, files = prompt_editor.insert(text, images, cursor, [C] * number)
    assert found.count(MARKER) == len(files) == len(images) + number
    assert prompt_editor.describe(found, files) == ""
    place = files.index(C)
    for _ in range(number):
        found, files = prompt_editor.remove(found, files, place)
    assert files == images
    assert found.count(MARKER) == len(images)


def test_removing_takes_the_marker_of_that_image() -> None:
    assert prompt_editor.remove("<i> wearing <i> in <i>", [A, B, C], 1) == (
        "<i> wearing in <i>",
        [A, C],
    )
    # One that has no marker any more goes alone.
    assert prompt_editor.remove("<i> there", [A, B], 1) == ("<i> there", [A])


def test_neighbours_change_places() -> None:
    assert prompt_editor.move([A, B, C], 0, 1) == ([B, A, C], 1)
    assert prompt_editor.move([A, B, C], 0, -1) == ([A, B, C], 0)
    assert prompt_editor.move([A], 5, 1) == ([A], 5)
    assert prompt_editor.replace([A, B], 1, C) == [A, C]


def test_forty_markers_and_one_image() -> None:
    told = prompt_editor.describe("<i>" * 40, [A])
    assert "40 <i> markers" in told and "1 input image" in told

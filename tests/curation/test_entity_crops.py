"""From logits to masks, and from masks to squares."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kosmosg.curation.entity_crops import CutEntities, find_mask
from kosmosg.curation.images import store
from kosmosg.curation.records import Record, Rejection
from kosmosg.data.entities import square_box

YES, NO = 5.0, -5.0
SIDE = 128


def logits(*boxes: tuple[int, int, int, int], side: int = SIDE) -> np.ndarray:
    """Certainty within some boxes, given as left, top, right, bottom."""
    values = np.full((side, side), NO, np.float16)
    for left, top, right, bottom in boxes:
        values[top:bottom, left:right] = YES
    return values


def box_of(mask: np.ndarray | None) -> tuple[int, int, int, int]:
    assert mask is not None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_the_mask_is_where_the_probability_exceeds_the_threshold() -> None:
    values = np.full((SIDE, SIDE), NO, np.float16)
    values[20:40, 20:60] = np.log(0.31 / 0.69)
    values[20:40, 60:90] = np.log(0.29 / 0.71)
    assert box_of(find_mask(values, SIDE, 0.3)) == (20, 20, 60, 40)
    assert box_of(find_mask(values, SIDE, 0.25)) == (20, 20, 90, 40)
    assert find_mask(values, SIDE, 0.5) is None


def test_masks_of_nothing_and_of_everything() -> None:
    assert find_mask(logits(), SIDE, 0.3) is None
    assert find_mask(np.full((8, 8), np.nan, np.float16), SIDE, 0.3) is None
    assert find_mask(np.full((8, 8), -np.inf, np.float16), SIDE, 0.3) is None
    mask = find_mask(np.full((8, 8), np.inf, np.float16), SIDE, 0.3)
    assert mask is not None
    assert mask.all()


def test_the_largest_part_is_kept() -> None:
    """By its own pixels: a frame around everything is larger only as a box."""
    frame = [(2, 2, 126, 3), (2, 125, 126, 126), (2, 2, 3, 126), (125, 2, 126, 126)]
    mask = find_mask(logits(*frame, (40, 40, 80, 70)), SIDE, 0.3)
    assert box_of(mask) == (40, 40, 80, 70)
    assert box_of(find_mask(logits((5, 5, 25, 25), (60, 60, 90, 90)), SIDE, 0.3))[0] == 60


def test_parts_that_touch_at_a_corner_are_one() -> None:
    mask = find_mask(logits((20, 20, 40, 40), (40, 40, 60, 60)), SIDE, 0.3)
    assert box_of(mask) == (20, 20, 60, 60)


@pytest.mark.parametrize(("side", "reach"), [(100, 0), (256, 1), (512, 2), (700, 3), (1024, 5)])
def test_it_grows_to_all_sides_alike(side: int, reach: int) -> None:
    box = (30, 40, 60, 70)
    grown = (30 - reach, 40 - reach, 60 + reach, 70 + reach)
    assert box_of(find_mask(logits(box, side=side), side, 0.3)) == grown


def test_gaps_close_before_parts_are_counted() -> None:
    parts = logits((100, 100, 200, 200), (202, 100, 300, 200), side=700)
    assert box_of(find_mask(parts, 700, 0.3)) == (97, 97, 303, 203)


def test_logits_are_enlarged_to_the_image() -> None:
    left, top, right, bottom = box_of(find_mask(logits((8, 8, 16, 24), side=32), 320, 0.3))
    assert np.allclose([left, top, right, bottom], [80, 80, 160, 240], atol=7)


@settings(deadline=None)
@given(st.data())
def test_squares_hold_the_mask_and_stay_inside(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(5, 40)), data.draw(st.integers(5, 40))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top, height - 1)), data.draw(st.integers(left, width - 1))
    margin = data.draw(st.integers(0, 3))
    mask = np.zeros((height, width), bool)
    mask[top : bottom + 1, left : right + 1] = True
    box = square_box(mask, margin)
    assert box[2] - box[0] == box[3] - box[1] <= min(height, width)
    assert min(box) >= 0
    assert box[2] <= width
    assert box[3] <= height
    wanted = max(bottom - top, right - left) + 1
    if wanted <= min(height, width):
        assert box[0] <= left < right + 1 <= box[2]
        assert box[1] <= top < bottom + 1 <= box[3]
        assert box[2] - box[0] == min(wanted + 2 * margin, height, width)


def image() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 200, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(values)


def record(caption: str, **found: np.ndarray) -> Record:
    return Record(
        key="a.jpg",
        source="https://host/a.jpg",
        image=store(image()),
        caption=caption,
        tags=tuple(name.replace("_", " ") for name in found),
        logits=tuple(found.values()),
    )


def test_the_two_images_of_an_entity() -> None:
    caption, there = "a cat and a dog", logits((10, 20, 50, 40))
    (outcome,) = CutEntities(side=80)([record(caption, dog=logits(), cat=there)])
    assert isinstance(outcome, Record)
    assert outcome.tags == ("cat",)
    assert outcome.dropped == (("dog", "empty-mask"),)
    assert outcome.image is None
    assert sorted(outcome.files) == ["crop0.png", "json", "masked0.png", "target.png"]
    assert b'"source": "https://host/a.jpg"' in outcome.files["json"]
    box = (10, 10, 50, 50)
    wanted = np.asarray(image().resize((80, 80), Image.Resampling.BICUBIC, box))
    assert np.array_equal(open_file(outcome, "crop0.png"), wanted)
    masked = open_file(outcome, "masked0.png")
    assert (masked[:15] == 255).all()
    assert (masked[65:] == 255).all()
    assert np.array_equal(masked[26:54, 5:75], wanted[26:54, 5:75])


def open_file(outcome: Record, name: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(outcome.files[name])))


def test_entities_stand_in_the_order_of_the_caption() -> None:
    one, other = logits((10, 10, 50, 50)), logits((60, 60, 100, 100))
    (outcome,) = CutEntities(side=32)([record("a cat's toy and a dog", dog=one, cat=other)])
    assert isinstance(outcome, Record)
    assert outcome.tags == ("cat", "dog")
    assert (
        b'"entities": [{"start": 2, "end": 7}, {"start": 18, "end": 21}]' in outcome.files["json"]
    )


def test_an_entity_within_the_words_of_another_one() -> None:
    there = logits((10, 10, 50, 50))
    (outcome,) = CutEntities(side=32)([record("a dog house", dog=there, dog_house=there)])
    assert isinstance(outcome, Record)
    assert outcome.tags == ("dog house",)
    assert outcome.dropped == (("dog", "covered"),)
    # Where there is no dog house to be seen, the dog stays.
    (outcome,) = CutEntities(side=32)([record("a dog house", dog=there, dog_house=logits())])
    assert isinstance(outcome, Record)
    assert outcome.tags == ("dog",)


def test_no_mask_at_all() -> None:
    (outcome,) = CutEntities()([record("a dog", dog=logits())])
    assert isinstance(outcome, Rejection)
    assert (outcome.reason, outcome.failed) == ("empty-masks", False)
    assert outcome.dropped == (("dog", "empty-mask"),)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_other_formats(format_: str) -> None:
    step = CutEntities(side=32, image_format=format_)  # type: ignore[arg-type]
    (outcome,) = step([record("a dog", dog=logits((10, 10, 50, 50)))])
    assert isinstance(outcome, Record)
    extension = {"JPEG": "jpg", "WEBP": "webp"}[format_]
    assert f"target.{extension}" in outcome.files

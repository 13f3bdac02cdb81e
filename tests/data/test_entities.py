"""Which words an entity's image belongs to: every case of the authors' reader."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.entities import (
    COLOURS,
    TagSpan,
    draw_prompt,
    interleave,
    match_tags,
)
from kosmosg.data.options import EntityOptions
from kosmosg.data.schema import CompositionalSample, EntityImages


def spans_of(caption: str, tags: list[str]) -> list[tuple[int, int]]:
    return [(match.start, match.end) for match in match_tags(caption, tags)]


@pytest.mark.parametrize(
    ("caption", "tags", "wanted"),
    [
        # A whole word, whatever its case; not a part of one, and no plural.
        ("A dog on the beach", ["dog"], ["dog"]),
        ("A DOG on the beach", ["dog"], ["DOG"]),
        ("a dog on the beach", ["Dog"], ["dog"]),
        ("two cats", ["cat"], []),
        ("concatenated", ["cat"], []),
        ("a concatenated cat", ["cat"], ["cat"]),
        ("a bird", ["dog"], []),
        # Colours are no entities, but may be part of one.
        ("a red dog", ["red", "dog"], ["dog"]),
        ("a Golden coin", ["golden", "coin"], ["coin"]),
        ("an orange on a table", ["orange", "table"], ["table"]),
        ("a red dog", ["red dog"], ["red dog"]),
        # A tag inside another, and a tag that comes twice.
        ("a dog near a dog house", ["dog", "dog house"], ["dog house"]),
        ("a dog near a doghouse", ["dog", "doghouse"], ["dog", "doghouse"]),
        ("a dog and a cat", ["dog", "dog", "cat"], ["cat"]),
        ("a dog and a cat", ["dog", "Dog", "cat"], ["cat"]),
        ("a dog", ["dog", "DOG house"], []),
        # What is written together stays together.
        ("a man's hat", ["man"], ["man's"]),
        ("a man-made lake", ["man"], ["man-made"]),
        ("a man-made lake", ["man", "lake"], ["man-made", "lake"]),
        ("a man-made lake", ["man", "made"], ["man-made"]),
        ("a man-made lake, made well", ["man", "made"], ["man-made", "made"]),
        ("a dog\nruns far", ["dog"], ["dog\nruns"]),
        *[(f"a dog{mark} here", ["dog"], ["dog"]) for mark in " ,.!?;:)]}"],
        ("a dog", ["dog"], ["dog"]),
        ("a (dog) here", ["dog"], ["dog"]),
        ("a dog\n", ["dog"], ["dog\n"]),
        # From left to right, each once.
        ("a cat and a dog", ["dog", "cat"], ["cat", "dog"]),
        ("a dog and a dog", ["dog"], ["dog"]),
        ("dog cat bird", ["bird", "cat", "dog"], ["dog", "cat", "bird"]),
        # Odd tags.
        ("a dog", ["", " dog ", "  "], ["dog"]),
        ("a c++ (book) here", ["c++", "(book"], ["c++", "(book"]),
        ("a dog", ["."], []),
        ("", ["dog"], []),
        ("a dog", [], []),
    ],
)
def test_tags_are_found_as_whole_words(caption: str, tags: list[str], wanted: list[str]):
    assert [caption[start:end] for start, end in spans_of(caption, tags)] == wanted


def test_a_match_names_its_tag():
    assert match_tags("a cat and a dog", ["dog", "red", "cat"]) == (
        TagSpan(tag=2, start=2, end=5),
        TagSpan(tag=0, start=12, end=15),
    )


def test_all_colours_of_the_authors_are_left_out():
    assert len(COLOURS) == 16
    for colour in COLOURS:
        assert not match_tags(f"a {colour} wall", [colour])


@pytest.mark.parametrize(
    ("caption", "tags", "kept", "dropped"),
    [
        ("A cat on a mat", ["cat"], ("A cat ", " on a mat"), ("A ", " on a mat")),
        ("A cat", ["cat"], ("A cat ", ""), ("A ", "")),
        ("a dog cat", ["dog", "cat"], ("a dog ", " cat ", ""), ("a ", " ", "")),
        ("A man's dog.", ["man", "dog"], ("A man's ", " dog ", "."), ("A ", " ", ".")),
        ("plain", [], ("plain",), ("plain",)),
        ("dog on a mat", ["dog"], ("dog ", " on a mat"), None),
    ],
)
def test_images_stand_behind_their_words(
    caption: str, tags: list[str], kept: tuple[str, ...], dropped: tuple[str, ...] | None
):
    spans = spans_of(caption, tags)
    assert interleave(caption, spans).segments == kept
    if dropped is not None:
        assert interleave(caption, spans, drop_text=True).segments == dropped


def test_dropping_the_first_words_is_a_counted_reason():
    with pytest.raises(BadSample) as error:
        interleave("dog on a mat", [(0, 3)], drop_text=True)
    assert error.value.reason == "entity-at-start"
    # An entity right behind another one is fine: the space between them is text.
    assert interleave("a dog cat", [(2, 5), (6, 9)], drop_text=True).segments[1] == " "


WORDS = ["dog", "cat", "dog house", "red", "man's", "a", ".", ",", "  ", "Dog", "cats"]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
    st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=6),
)
def test_whatever_the_tags_no_word_is_lost(caption: str, tags: list[str]):
    spans = spans_of(caption, tags)
    segments = interleave(caption, spans).segments
    assert len(segments) == len(spans) + 1
    assert "".join(s[:-1] for s in segments[:-1]) + segments[-1] == caption
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


def two_entities(caption: str = "a dog and a cat") -> CompositionalSample:
    def entity(start: int, shade: int) -> EntityImages:
        crops = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (shade, shade + 1)]
        return EntityImages(span=(start, start + 3), crop=crops[0], masked_crop=crops[1])

    entities = (entity(2, 10), entity(12, 20))
    return CompositionalSample(caption=caption, entities=entities, target=Image.new("RGB", (8, 8)))


def test_words_are_dropped_per_sample_and_backgrounds_per_entity():
    sample = two_entities()
    rng = np.random.default_rng(0)
    draws = [draw_prompt(sample, EntityOptions(), rng) for _ in range(2000)]
    segments = [prompt.segments for prompt, _ in draws]
    assert set(segments) == {("a dog ", " and a cat ", ""), ("a ", " and a ", "")}
    assert 0.45 < np.mean([s[0] == "a " for s in segments]) < 0.55
    shades = np.array([[np.asarray(image)[0, 0, 0] for image in images] for _, images in draws])
    masked = shades % 10
    assert (np.abs(masked.mean(axis=0) - 0.5) < 0.05).all()
    assert 0.45 < (masked[:, 0] == masked[:, 1]).mean() < 0.55


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_probabilities_of_nothing_and_everything(kept: float):
    options = EntityOptions(keep_background=kept, drop_text=1.0 - kept)
    sample = two_entities()
    for seed in range(20):
        prompt, images = draw_prompt(sample, options, np.random.default_rng(seed))
        assert prompt.segments[0] == ("a dog " if kept else "a ")
        chosen = [entity.crop if kept else entity.masked_crop for entity in sample.entities]
        assert all(image is wanted for image, wanted in zip(images, chosen, strict=True))

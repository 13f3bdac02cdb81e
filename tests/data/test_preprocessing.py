"""Samples → prompts, pixels and targets; documents → sentences and images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.options import EntityOptions
from kosmosg.data.preprocessing import CaptionLimits, DocumentPreparer, PromptPreparer
from kosmosg.data.schema import (
    CaptionSample,
    CompositionalSample,
    EditSample,
    EntityImages,
    InterleavedDocument,
    Sample,
    SubjectSample,
)
from kosmosg.errors import DataError
from kosmosg.prompts.batch import collate
from kosmosg.prompts.images import clip_pixels, target_pixels
from kosmosg.prompts.prompt import Prompt
from kosmosg.prompts.tokenizer import EOS_ID, KosmosGTokenizer, TokenizedPrompt
from tests import tiny
from tests.data.fakes import text_of

SLOTS, SIZE, TARGET = 3, 14, 16
RNG = np.random.default_rng(0)
DOG, CAT, BEACH = (
    Image.fromarray(RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(3)
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> KosmosGTokenizer:
    return tiny.write_tokenizer(tmp_path_factory.mktemp("tokenizer"), 320)


def preparer(tokenizer: KosmosGTokenizer, **changes) -> PromptPreparer:
    sizes: dict[str, Any] = {"image_slots": SLOTS, "image_size": SIZE, "target_size": TARGET}
    return PromptPreparer(tokenizer=tokenizer, **(sizes | changes))


def tokens(tokenizer: KosmosGTokenizer, *segments: str) -> TokenizedPrompt:
    return tokenizer.tokenize_prompt(Prompt(segments=segments), SLOTS)


CAPTION = CaptionSample(caption="a dog on the beach", image=BEACH)
EDIT = EditSample(caption="a dog", instruction="wearing a hat", before=DOG, after=BEACH)
COMPOSITION = CompositionalSample(
    caption="a dog and a cat",
    entities=(
        EntityImages(span=(2, 5), crop=DOG, masked_crop=BEACH),
        EntityImages(span=(12, 15), crop=CAT, masked_crop=BEACH),
    ),
    target=BEACH,
)
KEEP = EntityOptions(keep_background=1.0, drop_text=0.0)


@pytest.mark.parametrize(
    ("sample", "options", "segments", "images"),
    [
        (CAPTION, {}, ("a dog on the beach",), []),
        (EDIT, {"drop_caption": 0.0}, ("a dog", "wearing a hat"), [DOG]),
        (EDIT, {"drop_caption": 1.0}, ("", "wearing a hat"), [DOG]),
        (COMPOSITION, {"entities": KEEP}, ("a dog ", " and a cat ", ""), [DOG, CAT]),
        (
            COMPOSITION,
            {"entities": EntityOptions(keep_background=0.0, drop_text=1.0)},
            ("a ", " and a ", ""),
            [BEACH, BEACH],
        ),
        (
            SubjectSample(prompt="both at sea", images=(DOG, CAT), target=BEACH),
            {},
            ("", "", "both at sea"),
            [DOG, CAT],
        ),
    ],
)
def test_a_sample_becomes_a_prompt_its_images_and_a_target(
    tokenizer: KosmosGTokenizer,
    sample: Sample,
    options: dict,
    segments: tuple[str, ...],
    images: list[Image.Image],
):
    prepared = preparer(tokenizer, **options)(sample, np.random.default_rng(0))
    assert prepared.prompt == tokens(tokenizer, *segments)
    assert EOS_ID not in prepared.prompt.ids
    assert len(prepared.pixels) == len(images)
    for pixels, image in zip(prepared.pixels, images, strict=True):
        np.testing.assert_array_equal(pixels, clip_pixels(image, SIZE))
    assert prepared.target is not None
    np.testing.assert_array_equal(prepared.target, target_pixels(BEACH, TARGET).astype(np.float32))
    assert prepared.caption == getattr(sample, "caption", "")


def test_markers_in_a_caption_are_text(tokenizer: KosmosGTokenizer):
    sample = CaptionSample(caption="a <i> dog", image=BEACH)
    prepared = preparer(tokenizer)(sample, RNG)
    assert not any(prepared.prompt.image_mask)


def test_captions_of_edits_are_dropped_half_of_the_time(tokenizer: KosmosGTokenizer):
    prepare, rng = preparer(tokenizer), np.random.default_rng(0)
    lengths = [len(prepare(EDIT, rng).prompt.ids) for _ in range(400)]
    assert len(set(lengths)) == 2
    assert 0.4 < np.mean(np.array(lengths) == min(lengths)) < 0.6


def test_stage_2_needs_no_images(tokenizer: KosmosGTokenizer):
    sample = CaptionSample(caption="a dog", image=None)
    assert preparer(tokenizer, target_size=None)(sample, RNG).target is None
    with pytest.raises(BadSample, match="missing-part"):
        preparer(tokenizer)(sample, RNG)


def test_what_is_prepared_can_be_collated(tokenizer: KosmosGTokenizer):
    prepare = preparer(tokenizer)
    prepared = [prepare(sample, RNG) for sample in (CAPTION, EDIT, COMPOSITION)]
    pixels = [image for one in prepared for image in one.pixels]
    batch = collate([one.prompt for one in prepared], pixels)
    assert batch.pixels is not None and batch.pixels.shape == (3, 3, SIZE, SIZE)
    assert int(batch.image_mask.sum()) == 3 * SLOTS


def count_words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (CaptionLimits(tokens=5), None),
        (CaptionLimits(tokens=4), "caption-too-long"),
        (CaptionLimits(clip_tokens=4), None),
        (CaptionLimits(clip_tokens=5, count_clip_tokens=count_words), None),
        (CaptionLimits(clip_tokens=4, count_clip_tokens=count_words), "caption-too-long"),
    ],
)
def test_long_captions_are_left_out(
    tokenizer: KosmosGTokenizer, limits: CaptionLimits, reason: str | None
):
    assert len(tokens(tokenizer, CAPTION.caption).ids) == 1 + 5
    for prepare in (
        preparer(tokenizer, limits=limits),
        DocumentPreparer(tokenizer=tokenizer, image_slots=SLOTS, image_size=SIZE, limits=limits),
    ):
        if reason is None:
            assert prepare(CAPTION, RNG)
        else:
            with pytest.raises(BadSample, match=reason):
                prepare(CAPTION, RNG)


def test_the_published_limits():
    assert (CaptionLimits().tokens, CaptionLimits().clip_tokens) == (128, 75)


def test_long_prompts_are_left_out(tokenizer: KosmosGTokenizer):
    length = len(preparer(tokenizer, entities=KEEP)(COMPOSITION, RNG).prompt.ids)
    preparer(tokenizer, entities=KEEP, max_tokens=length)(COMPOSITION, RNG)
    with pytest.raises(BadSample, match="prompt-too-long"):
        preparer(tokenizer, entities=KEEP, max_tokens=length - 1)(COMPOSITION, RNG)


def test_an_image_that_cannot_be_cropped_is_skipped(tokenizer: KosmosGTokenizer):
    strip = Image.new("RGB", (200, 2))
    for sample in (
        CaptionSample(caption="a dog", image=strip),
        EditSample(caption="", instruction="", before=strip, after=BEACH),
    ):
        with pytest.raises(BadSample, match="image"):
            preparer(tokenizer)(sample, RNG)


def test_kinds_that_a_stage_does_not_read_are_skipped(tokenizer: KosmosGTokenizer):
    with pytest.raises(BadSample, match="wrong-kind"):
        preparer(tokenizer)(InterleavedDocument(parts=("a dog",)), RNG)
    prepare = DocumentPreparer(tokenizer=tokenizer, image_slots=SLOTS, image_size=SIZE)
    for sample in (EDIT, COMPOSITION):
        with pytest.raises(BadSample, match="wrong-kind"):
            prepare(sample, RNG)


def test_a_document_is_cut_into_sentences_and_images(tokenizer: KosmosGTokenizer):
    prepare = DocumentPreparer(tokenizer=tokenizer, image_slots=SLOTS, image_size=SIZE)
    sample = InterleavedDocument(parts=("a dog. the cat! a hat\nin red", DOG, "", " ", CAT))
    document = prepare(sample, RNG)
    assert [len(piece.pixels) for piece in document] == [0, 0, 0, 0, 1, 1]
    # Cutting at sentences changes no token.
    together = tokens(tokenizer, "a dog. the cat! a hat in red", "", "")
    assert text_of(document) == list(together.ids[1:])
    assert [flag for piece in document for flag in piece.prompt.image_mask] == list(
        together.image_mask[1:]
    )
    np.testing.assert_array_equal(document[5].pixels[0], clip_pixels(CAT, SIZE))


def test_a_caption_is_a_document_that_begins_with_its_image(tokenizer: KosmosGTokenizer):
    prepare = DocumentPreparer(tokenizer=tokenizer, image_slots=SLOTS, image_size=SIZE)
    assert text_of(prepare(CAPTION, RNG)) == list(tokens(tokenizer, "", CAPTION.caption).ids[1:])
    bare = CaptionSample(caption="a dog", image=None)
    assert text_of(prepare(bare, RNG)) == list(tokens(tokenizer, "a dog").ids[1:])


@pytest.mark.parametrize("parts", [(), ("",), (" ", "\n")])
def test_a_document_without_a_token_is_skipped(tokenizer: KosmosGTokenizer, parts: tuple[str, ...]):
    prepare = DocumentPreparer(tokenizer=tokenizer, image_slots=SLOTS, image_size=SIZE)
    with pytest.raises(BadSample, match="empty-document"):
        prepare(InterleavedDocument(parts=parts), RNG)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(tokenizer: KosmosGTokenizer, value: float):
    with pytest.raises(DataError, match=f"--drop-caption is a probability.*cannot be {value}"):
        preparer(tokenizer, drop_caption=value)
    for name in ("keep_background", "drop_text"):
        option = name.replace("_", "-")
        with pytest.raises(DataError, match=f"--{option} is a probability.*cannot be {value}"):
            EntityOptions(**{name: value})


def test_real_pieces_survive_cutting_at_sentences(real_tokenizer: Path):
    tokenizer = KosmosGTokenizer.from_pretrained(real_tokenizer)
    prepare = DocumentPreparer(tokenizer=tokenizer, image_slots=SLOTS, image_size=SIZE)
    text = "Mr. Smith, 3.5 km away.  Who? He said: “Yes!” Then\nhe left… (at 5 p.m.) And so on."
    document = prepare(InterleavedDocument(parts=(text,)), RNG)
    assert len(document) > 4
    assert text_of(document) == list(tokens(tokenizer, text).ids[1:])

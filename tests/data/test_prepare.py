"""Samples → prompts, pixels and targets; documents → packed sequences."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kosmosg.data.batch import collate
from kosmosg.data.entities import EntityOptions
from kosmosg.data.mixing import Mixture, Source
from kosmosg.data.packing import PackedMixture, pack
from kosmosg.data.prepare import (
    CaptionLimits,
    Document,
    DocumentPreparer,
    Piece,
    Prepared,
    PromptPreparer,
)
from kosmosg.data.samples import (
    CaptionSample,
    CompositionalSample,
    EditSample,
    Entity,
    InterleavedDocument,
    Sample,
    Scan,
)
from kosmosg.data.skipping import BadSample
from kosmosg.errors import DataError
from kosmosg.images import clip_pixels, target_pixels
from kosmosg.prompt import Prompt
from kosmosg.tokenizer import BOS_ID, EOS_ID, KosmosGTokenizer, TokenizedPrompt
from tests import tiny

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
    return tokenizer.encode(Prompt(segments=segments), SLOTS)


CAPTION = CaptionSample(caption="a dog on the beach", image=BEACH)
EDIT = EditSample(caption="a dog", instruction="wearing a hat", before=DOG, after=BEACH)
COMPOSITION = CompositionalSample(
    caption="a dog and a cat",
    entities=(
        Entity(span=(2, 5), crop=DOG, masked_crop=BEACH),
        Entity(span=(12, 15), crop=CAT, masked_crop=BEACH),
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
    assert prepared.caption == sample.caption  # type: ignore[union-attr]


def test_markers_in_a_caption_are_text(tokenizer: KosmosGTokenizer):
    sample = CaptionSample(caption="a <i> dog", image=BEACH)
    prepared = preparer(tokenizer)(sample, RNG)
    assert not any(prepared.prompt.image_mask)


def test_captions_of_edits_are_dropped_half_of_the_time(tokenizer: KosmosGTokenizer):
    prepare, rng = preparer(tokenizer), np.random.default_rng(0)
    lengths = [len(prepare(EDIT, rng).prompt.ids) for _ in range(400)]
    assert len(set(lengths)) == 2
    assert 0.4 < np.mean(np.array(lengths) == min(lengths)) < 0.6


def test_stage_2_needs_no_pictures(tokenizer: KosmosGTokenizer):
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


def test_a_picture_that_cannot_be_cropped_is_skipped(tokenizer: KosmosGTokenizer):
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


def text_of(document: Document) -> list[int]:
    return [token for piece in document for token in piece.prompt.ids]


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


def test_a_caption_is_a_document_that_begins_with_its_picture(tokenizer: KosmosGTokenizer):
    prepare = DocumentPreparer(tokenizer=tokenizer, image_slots=SLOTS, image_size=SIZE)
    assert text_of(prepare(CAPTION, RNG)) == list(tokens(tokenizer, "", CAPTION.caption).ids[1:])
    bare = CaptionSample(caption="a dog", image=None)
    assert text_of(prepare(bare, RNG)) == list(tokens(tokenizer, "a dog").ids[1:])


@pytest.mark.parametrize("parts", [(), ("",), (" ", "\n")])
def test_a_document_without_a_token_is_skipped(tokenizer: KosmosGTokenizer, parts: tuple[str, ...]):
    prepare = DocumentPreparer(tokenizer=tokenizer, image_slots=SLOTS, image_size=SIZE)
    with pytest.raises(BadSample, match="empty-document"):
        prepare(InterleavedDocument(parts=parts), RNG)


IMAGE_START, SLOT, IMAGE_END = 90, 91, 92


def sentence(*ids: int) -> Piece:
    return Piece(prompt=TokenizedPrompt(ids=ids, image_mask=(False,) * len(ids)))


def picture(number: int) -> Piece:
    ids, mask = (IMAGE_START, SLOT, SLOT, IMAGE_END), (False, True, True, False)
    pixels = np.full((3, 1, 1), float(number))
    return Piece(prompt=TokenizedPrompt(ids=ids, image_mask=mask), pixels=(pixels,))


@pytest.mark.parametrize(
    ("documents", "room", "wanted"),
    [
        # Documents with </s> (2) in between, <s> (0) once; none at the end.
        ([[[10, 11]], [[12]]], 8, [[0, 10, 11, 2, 12]]),
        ([[[10, 11]], [[12]]], 5, [[0, 10, 11, 2, 12]]),
        ([[[10, 11]], [[12]]], 4, [[0, 10, 11], [0, 12]]),
        # A sentence that does not fit begins the next sequence, in the midst of its document.
        ([[[10, 11], [12, 13]], [[14]]], 4, [[0, 10, 11], [0, 12, 13], [0, 14]]),
        ([[[10, 11], [12, 13]], [[14]]], 5, [[0, 10, 11, 12, 13], [0, 14]]),
        ([[[10, 11], [12, 13]], [[14]]], 7, [[0, 10, 11, 12, 13, 2, 14]]),
        # A sentence longer than a sequence is cut, an image is not.
        ([[[10, 11, 12, 13, 14]], [[15]]], 4, [[0, 10, 11, 12], [0, 13, 14], [0, 15]]),
        ([[[10, 11], 7, [12]]], 5, [[0, 10, 11], [0, 90, 91, 91, 92], [0, 12]]),
        ([[[10, 11], 7, [12]]], 7, [[0, 10, 11, 90, 91, 91, 92], [0, 12]]),
        ([[7, [12]], [8]], 12, [[0, 90, 91, 91, 92, 12, 2, 90, 91, 91, 92]]),
        ([], 5, []),
    ],
)
def test_sequences_are_filled_with_whole_sentences(
    documents: list[list[list[int] | int]], room: int, wanted: list[list[int]]
):
    made = [
        tuple(picture(one) if isinstance(one, int) else sentence(*one) for one in document)
        for document in documents
    ]
    sequences = list(pack(made, room))
    assert [list(sequence.prompt.ids) for sequence in sequences] == wanted
    for sequence in sequences:
        assert [id_ == SLOT for id_ in sequence.prompt.ids] == list(sequence.prompt.image_mask)
        assert len(sequence.pixels) == sequence.prompt.ids.count(IMAGE_START)
    images = [one for document in documents for one in document if isinstance(one, int)]
    assert [int(p[0, 0, 0]) for sequence in sequences for p in sequence.pixels] == images


def test_an_image_longer_than_a_sequence_is_an_error():
    with pytest.raises(DataError, match="takes 4 tokens, but sequences of 4"):
        list(pack([(sentence(10), picture(1))], 4))


PIECES = st.lists(st.integers(1, 12).map(lambda n: sentence(*range(10, 10 + n))), min_size=1)
MIXED = st.lists(st.one_of(st.just(picture(1)), PIECES.map(lambda p: p[0])), min_size=1, max_size=5)


@settings(deadline=None)
@given(st.lists(MIXED.map(tuple), max_size=8), st.integers(5, 20))
def test_packing_loses_nothing_and_leaves_little_room(documents: list[Document], room: int):
    sequences = list(pack(documents, room))
    ids = [id_ for one in sequences for id_ in one.prompt.ids if id_ not in (BOS_ID, EOS_ID)]
    assert ids == [id_ for document in documents for id_ in text_of(document)]
    for one in sequences:
        assert 1 < len(one.prompt.ids) <= room
        assert one.prompt.ids[-1] != EOS_ID
        assert sum(one.prompt.image_mask) == 2 * len(one.pixels)
    # What was left free was too short for </s> and the longest piece.
    assert all(room - len(one.prompt.ids) < 1 + 12 for one in sequences[:-1])


class Numbers:
    """A shard of short documents."""

    name = "numbers"
    path = Path("numbers")

    def scan(self) -> Scan:
        return Scan(entries=range(10))

    def read(self, entry: int, generator: np.random.Generator) -> Sample:
        if entry == 3:
            raise BadSample("image", "torn")
        return CaptionSample(caption=str(entry), image=None)


def number_document(sample: Sample, generator: np.random.Generator) -> Document:
    assert isinstance(sample, CaptionSample)
    number = int(sample.caption)
    pieces = [sentence(*[10 + number] * int(generator.integers(1, 9))) for _ in range(number % 4)]
    return (*pieces, picture(number))


def packed(seed: int) -> PackedMixture:
    one = Source(name="n", shards=[Numbers()], weight=1, prepare=number_document)
    return PackedMixture(Mixture([one], seed=seed), max_tokens=9)


def ids_of(sequences: Sequence[Prepared]) -> list[tuple[int, ...]]:
    return [sequence.prompt.ids for sequence in sequences]


@settings(deadline=None)
@given(stop=st.integers(0, 25), seed=st.integers(0, 4))
def test_a_resumed_packed_stream_goes_on_as_an_undisturbed_one(stop: int, seed: int):
    undisturbed = packed(seed)
    wanted = ids_of(list(islice(undisturbed, stop + 15)))
    stopped, resumed = packed(seed), packed(seed)
    list(islice(stopped, stop))
    next(resumed)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.state_dict() == stopped.state_dict()
    assert ids_of(list(islice(resumed, 15))) == wanted[stop:]
    assert resumed.state_dict() == undisturbed.state_dict()
    assert resumed.skipped == undisturbed.skipped
    assert resumed.given == undisturbed.given


def test_real_pieces_survive_cutting_at_sentences(real_tokenizer: Path):
    tokenizer = KosmosGTokenizer.from_pretrained(real_tokenizer)
    prepare = DocumentPreparer(tokenizer=tokenizer, image_slots=SLOTS, image_size=SIZE)
    text = "Mr. Smith, 3.5 km away.  Who? He said: “Yes!” Then\nhe left… (at 5 p.m.) And so on."
    document = prepare(InterleavedDocument(parts=(text,)), RNG)
    assert len(document) > 4
    assert text_of(document) == list(tokens(tokenizer, text).ids[1:])

"""Documents → packed sequences."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.mixture import Mixture, Source
from kosmosg.data.packing import PackedMixture, pack
from kosmosg.data.preprocessing import Document, Piece, Prepared
from kosmosg.data.schema import CaptionSample, Sample, Scan
from kosmosg.errors import DataError
from kosmosg.prompts.tokenizer import BOS_ID, EOS_ID, TokenizedPrompt
from tests.data.fakes import text_of

IMAGE_START, SLOT, IMAGE_END = 90, 91, 92


def sentence(*ids: int) -> Piece:
    return Piece(prompt=TokenizedPrompt(ids=ids, image_mask=(False,) * len(ids)))


def image_piece(number: int) -> Piece:
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
        tuple(image_piece(one) if isinstance(one, int) else sentence(*one) for one in document)
        for document in documents
    ]
    sequences = [sequence for sequence, _ in pack(made, room)]
    assert [list(sequence.prompt.ids) for sequence in sequences] == wanted
    for sequence in sequences:
        assert [id_ == SLOT for id_ in sequence.prompt.ids] == list(sequence.prompt.image_mask)
        assert len(sequence.pixels) == sequence.prompt.ids.count(IMAGE_START)
    images = [one for document in documents for one in document if isinstance(one, int)]
    assert [int(p[0, 0, 0]) for sequence in sequences for p in sequence.pixels] == images


def test_an_image_longer_than_a_sequence_is_an_error():
    with pytest.raises(DataError, match="takes 4 tokens, but sequences of 4"):
        list(pack([(sentence(10), image_piece(1))], 4))


PIECES = st.lists(st.integers(1, 12).map(lambda n: sentence(*range(10, 10 + n))), min_size=1)
MIXED = st.lists(
    st.one_of(st.just(image_piece(1)), PIECES.map(lambda p: p[0])), min_size=1, max_size=5
)


@settings(deadline=None)
@given(st.lists(MIXED.map(tuple), max_size=8), st.integers(5, 20))
def test_packing_loses_nothing_and_leaves_little_room(documents: list[Document], room: int):
    sequences = [sequence for sequence, _ in pack(documents, room)]
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

    def expect(self) -> None:
        """Nothing takes time here."""

    def read(self, entry: int, generator: np.random.Generator) -> Sample:
        if entry == 3:
            raise BadSample("image", "torn")
        return CaptionSample(caption=str(entry), image=None)


def number_document(sample: Sample, generator: np.random.Generator) -> Document:
    assert isinstance(sample, CaptionSample)
    number = int(sample.caption)
    pieces = [sentence(*[10 + number] * int(generator.integers(1, 9))) for _ in range(number % 4)]
    return (*pieces, image_piece(number))


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

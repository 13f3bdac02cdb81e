"""Documents → sequences of full length, for stage 1.

KOSMOS-1 packs "full sentences": a sequence takes whole sentences and images, one document after
the other with ``</s>`` in between, until the next one does not fit; the next sequence goes on
from there. With room for 12 tokens and images of 4:

    a dog . IMG it runs .  |  red cat .    →   <s> a dog . IMG it runs .
                                               <s> red cat . …
    a dog .  |  IMG  |  it runs .          →   <s> a dog . </s> IMG
                                               <s> it runs . …

Every sequence begins with ``<s>``, as a prompt does. ``</s>`` stands *between* two documents of a
sequence and nowhere else: as in the other stages, none stands at the end.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from kosmosg.data.mixture import Mixture
from kosmosg.data.preprocessing import Document, Piece, Prepared
from kosmosg.errors import DataError
from kosmosg.prompts.tokenizer import BOS_ID, EOS_ID, TokenizedPrompt


class PackedMixture:
    """The endless stream of packed sequences of one process, resumable at any sequence.

    Args:
        mixture: A stream of documents.
        max_tokens: Length of a sequence.
    """

    def __init__(self, mixture: Mixture[Document], max_tokens: int):
        self._mixture = mixture
        self._max_tokens = max_tokens
        self._start(skip=0)

    def __iter__(self) -> Iterator[Prepared]:
        return self

    def __next__(self) -> Prepared:
        sequence, self._packed_pieces = next(self._sequences)
        return sequence

    @property
    def given(self) -> dict[str, int]:
        """How many documents each source has given."""
        return self._mixture.given

    @property
    def skipped(self) -> dict[str, dict[str, int]]:
        """How many documents and shards of each source were skipped, by reason."""
        return self._mixture.skipped

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands: before which document, and how much of it is packed."""
        return {"documents": self._before_document, "packed_pieces": self._packed_pieces}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another stream stood, with the same sequences.

        Raises:
            DataError: If that stream was another one.
        """
        self._mixture.load_state_dict(state["documents"])
        self._start(skip=state["packed_pieces"])

    def close(self) -> None:
        """End the threads that read ahead."""
        self._mixture.close()

    def _start(self, skip: int) -> None:
        self._before_document = self._mixture.state_dict()
        self._packed_pieces = skip
        self._sequences = pack(self._documents(), self._max_tokens, skip)

    def _documents(self) -> Iterator[Document]:
        while True:
            self._before_document = self._mixture.state_dict()
            yield next(self._mixture)


def pack(
    documents: Iterable[Document], max_tokens: int, skip: int = 0
) -> Iterator[tuple[Prepared, int]]:
    """Fill sequences with documents; only the last one may have room for more.

    A sentence that is longer than a sequence is cut; an image never is.

    Args:
        documents: None of them empty.
        max_tokens: Length of a sequence.
        skip: How many pieces of the first document are packed already.

    Yields:
        A sequence, and how many pieces of the document at hand are packed with it.

    Raises:
        DataError: If not even one image fits into a sequence.
    """
    sequence = _Sequence(max_tokens)
    for document in documents:
        pieces = [part for piece in document for part in _cut(piece, max_tokens - 1)]
        for number in range(skip, len(pieces)):
            new_document = number == 0
            if not sequence.fits(pieces[number], new_document):
                yield sequence.finish(), number
                sequence = _Sequence(max_tokens)
            sequence.add(pieces[number], new_document)
        skip = 0
    if not sequence.empty:
        yield sequence.finish(), 0


class _Sequence:
    """A sequence that is being filled."""

    def __init__(self, max_tokens: int):
        self._max_tokens = max_tokens
        self._ids, self._image_mask = [BOS_ID], [False]
        self._pixels = []

    @property
    def empty(self) -> bool:
        return len(self._ids) == 1

    def fits(self, piece: Piece, new_document: bool) -> bool:
        separator = new_document and not self.empty
        return len(self._ids) + separator + len(piece.prompt.ids) <= self._max_tokens

    def add(self, piece: Piece, new_document: bool) -> None:
        if new_document and not self.empty:
            self._ids.append(EOS_ID)
            self._image_mask.append(False)
        self._ids += piece.prompt.ids
        self._image_mask += piece.prompt.image_mask
        self._pixels += piece.pixels

    def finish(self) -> Prepared:
        prompt = TokenizedPrompt(ids=tuple(self._ids), image_mask=tuple(self._image_mask))
        return Prepared(prompt=prompt, pixels=tuple(self._pixels), target=None, caption="")


def _cut(piece: Piece, room: int) -> list[Piece]:
    """Cut a sentence that is longer than a sequence."""
    ids, image_mask = piece.prompt.ids, piece.prompt.image_mask
    if len(ids) <= room:
        return [piece]
    if piece.pixels:
        raise DataError(
            f"An image takes {len(ids)} tokens, but sequences of {room + 1} have room for {room}. "
            "Pack into longer sequences."
        )
    return [
        Piece(
            prompt=TokenizedPrompt(
                ids=ids[start : start + room], image_mask=image_mask[start : start + room]
            )
        )
        for start in range(0, len(ids), room)
    ]

"""Text and image slots → token ids, as KOSMOS-1 and KOSMOS-G were trained (paper, section 2.1).

A SentencePiece model cuts text into pieces; a fairseq dictionary numbers the pieces *by their
string*, so that SentencePiece's own ids never appear. One image becomes
``<image>`` × (1 + slots) and ``</image>``; the slots are later overwritten with the resampler's
vectors:

    "<i> swims"  →  <s> <image> <image> … <image> </image> ▁swim s
    image mask       0     0       1    …    1       0       0   0
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from kosmosg.errors import WeightsError
from kosmosg.prompts.prompt import Prompt

LEADING_SYMBOLS: tuple[str, ...] = ("<s>", "<pad>", "</s>", "<unk>")
ADDED_SYMBOLS: tuple[str, ...] = ("<mask>", "</doc>", "<image>", "</image>", "</chunk>", "</line>")
BOS_ID, PAD_ID, EOS_ID, UNK_ID = range(4)

SENTENCEPIECE_FILE = "sentencepiece.bpe.model"
DICTIONARY_FILE = "dict.txt"


@dataclass(frozen=True, kw_only=True)
class TokenizedPrompt:
    """One prompt as the language model reads it.

    ``image_mask[k]`` is true where ``ids[k]`` is a slot that an image vector will replace.
    """

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]


class KosmosGTokenizer:
    """SentencePiece pieces, numbered by a fairseq dictionary."""

    def __init__(self, sentencepiece_file: Path, dictionary_file: Path):
        self._files = (Path(sentencepiece_file), Path(dictionary_file))
        self._pieces = _load_sentencepiece(self._files[0])
        self._ids = _read_dictionary(self._files[1])
        self._image_id = self._ids["<image>"]
        self._image_end_id = self._ids["</image>"]

    def __len__(self) -> int:
        """Size of the vocabulary, special symbols included."""
        return len(self._ids)

    @property
    def symbols(self) -> list[str]:
        """Every symbol, in the order of its id."""
        return list(self._ids)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "KosmosGTokenizer":
        """Open the two files of a tokenizer folder.

        Raises:
            WeightsError: If one is missing or cannot be read.
        """
        directory = Path(directory)
        return cls(directory / SENTENCEPIECE_FILE, directory / DICTIONARY_FILE)

    def save_pretrained(self, directory: str | Path) -> None:
        """Copy the two files into a folder, which is made if missing."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for source, name in zip(self._files, (SENTENCEPIECE_FILE, DICTIONARY_FILE), strict=True):
            if source.resolve() != (directory / name).resolve():
                shutil.copyfile(source, directory / name)

    def encode(self, prompt: Prompt, image_slots: int) -> TokenizedPrompt:
        """Lay out a prompt as token ids.

        Each stretch of text is encoded on its own and so starts with its own word boundary; an
        empty stretch vanishes. No end-of-sentence symbol is appended.

        Args:
            prompt: The parsed prompt.
            image_slots: Vectors per image (64 in the released model).
        """
        # NOTE(reference): <image> stands once more than there are slots. The first is the
        # delimiter and keeps its word embedding.
        image = [self._image_id] * (1 + image_slots) + [self._image_end_id]
        image_mask = [False] + [True] * image_slots + [False]
        ids, mask = [BOS_ID], [False]
        for index, segment in enumerate(prompt.segments):
            if index > 0:
                ids += image
                mask += image_mask
            pieces = self._pieces.encode(segment, out_type=str)
            ids += [self._ids.get(piece, UNK_ID) for piece in pieces]
            mask += [False] * len(pieces)
        return TokenizedPrompt(ids=tuple(ids), image_mask=tuple(mask))


def _load_sentencepiece(file: Path) -> SentencePieceProcessor:
    if not file.is_file():
        raise WeightsError(f"The tokenizer lacks {file.name}: no such file in {file.parent}.")
    try:
        return SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{file} is not a SentencePiece model ({error}).") from error


def _read_dictionary(file: Path) -> dict[str, int]:
    """Read ``piece count`` lines and number them behind the leading symbols."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise WeightsError(
            f"The tokenizer lacks {file.name}: no such file in {file.parent}."
        ) from error
    except OSError as error:
        raise WeightsError(f"{file} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{file} is not UTF-8 text ({error}).") from error
    symbols = list(LEADING_SYMBOLS)
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        # Pieces may hold any character but the blank in front of the count.
        piece, blank, count = line.rpartition(" ")
        if not blank or not count.isdecimal():
            raise WeightsError(f"{file}, line {number}: wanted 'piece count', found {line[:80]!r}.")
        symbols.append(piece)
    symbols += ADDED_SYMBOLS
    ids = {symbol: index for index, symbol in enumerate(symbols)}
    if len(ids) != len(symbols):
        twice = next(symbol for index, symbol in enumerate(symbols) if ids[symbol] != index)
        raise WeightsError(f"{file}: the piece {twice!r} stands there twice.")
    return ids

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
from typing import Any, ClassVar

from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedTokenizer

from kosmosg.errors import WeightsError
from kosmosg.prompts.prompt import Prompt
from kosmosg.utils.hub import is_repository_id

LEADING_SYMBOLS: tuple[str, ...] = ("<s>", "<pad>", "</s>", "<unk>")
ADDED_SYMBOLS: tuple[str, ...] = ("<mask>", "</doc>", "<image>", "</image>", "</chunk>", "</line>")
BOS_ID, PAD_ID, EOS_ID, UNK_ID = range(4)

SENTENCEPIECE_FILE = "sentencepiece.bpe.model"
DICTIONARY_FILE = "dict.txt"
WORD_BOUNDARY = "▁"  # SentencePiece's mark for a blank


@dataclass(frozen=True, kw_only=True)
class TokenizedPrompt:
    """One prompt as the language model reads it.

    ``image_mask[k]`` is true where ``ids[k]`` is a slot that an image vector will replace.
    """

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]


class KosmosGTokenizer(PreTrainedTokenizer):
    """SentencePiece pieces, numbered by a fairseq dictionary.

    A tokenizer of transformers: called with text it yields ``input_ids`` that begin with ``<s>``,
    and what looks like a special symbol is text unless ``split_special_tokens=False`` is given.
    """

    vocab_files_names: ClassVar = {
        "sentencepiece_file": SENTENCEPIECE_FILE,
        "dictionary_file": DICTIONARY_FILE,
    }
    model_input_names: ClassVar = ["input_ids", "attention_mask"]

    def __init__(self, sentencepiece_file: str | Path, dictionary_file: str | Path, **options: Any):
        self._files = (Path(sentencepiece_file), Path(dictionary_file))
        self._pieces = _load_sentencepiece(self._files[0])
        self._ids = _read_dictionary(self._files[1])
        self._symbols = list(self._ids)
        names = ("bos_token", "pad_token", "eos_token", "unk_token")
        options |= dict(zip(names, LEADING_SYMBOLS, strict=True))
        options |= {"extra_special_tokens": list(ADDED_SYMBOLS), "special_tokens_pattern": "bos"}
        super().__init__(**{"split_special_tokens": True} | options)

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary, special symbols included."""
        return len(self._ids)

    @property
    def symbols(self) -> list[str]:
        """Every symbol, in the order of its id."""
        return list(self._symbols)

    @classmethod
    def from_pretrained(cls, directory: str | Path, **options: Any) -> "KosmosGTokenizer":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Open a tokenizer's folder or Hub repository.

        Args:
            directory: With the two files; what ``save_pretrained`` writes beside them may be there.
            options: As for any tokenizer of transformers. In a repository with a whole pipeline it
                is ``subfolder="tokenizer"``.

        Raises:
            WeightsError: If a file is missing or cannot be read.
        """
        if not is_repository_id(directory):
            for name in cls.vocab_files_names.values():
                _check_file(Path(directory, options.get("subfolder", ""), name))
        try:
            return super().from_pretrained(directory, **options)
        except WeightsError:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"The tokenizer in {directory} cannot be read ({error}).") from error

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Copy the two files into a folder, which is made if missing."""
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        written = []
        for source, name in zip(self._files, self.vocab_files_names.values(), strict=True):
            target = directory / f"{prefix}{name}"
            if source.resolve() != target.resolve():
                shutil.copyfile(source, target)
            written.append(str(target))
        return tuple(written)

    def tokenize_prompt(self, prompt: Prompt, image_slots: int) -> TokenizedPrompt:
        """Lay out a prompt as token ids.

        Each stretch of text is encoded on its own and so starts with its own word boundary; an
        empty stretch vanishes. No end-of-sentence symbol is appended.

        Args:
            prompt: The parsed prompt.
            image_slots: Vectors per image (64 in the released model).
        """
        # NOTE(reference): <image> stands once more than there are slots. The first is the
        # delimiter and keeps its word embedding.
        image = [self._ids["<image>"]] * (1 + image_slots) + [self._ids["</image>"]]
        image_mask = [False] + [True] * image_slots + [False]
        ids, mask = [BOS_ID], [False]
        for index, segment in enumerate(prompt.segments):
            if index > 0:
                ids += image
                mask += image_mask
            pieces = self._tokenize(segment)
            ids += [self._convert_token_to_id(piece) for piece in pieces]
            mask += [False] * len(pieces)
        return TokenizedPrompt(ids=tuple(ids), image_mask=tuple(mask))

    def get_vocab(self) -> dict[str, int]:
        """Ids by symbol."""
        return dict(self._ids)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces to text."""
        return "".join(tokens).replace(WORD_BOUNDARY, " ").removeprefix(" ")

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return self._pieces.encode(text, out_type=str)

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, UNK_ID)

    def _convert_id_to_token(self, index: int) -> str:
        return self._symbols[index]


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise WeightsError(f"The tokenizer lacks {file.name}: no such file in {file.parent}.")


def _load_sentencepiece(file: Path) -> SentencePieceProcessor:
    _check_file(file)
    try:
        return SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{file} is not a SentencePiece model ({error}).") from error


def _read_dictionary(file: Path) -> dict[str, int]:
    """Read ``piece count`` lines and number them behind the leading symbols."""
    _check_file(file)
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
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

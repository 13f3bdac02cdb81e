"""The vocabularies of the world: every word one token, every English prompt readable."""

import json
import re
import string
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from kosmosg.prompts.prompt import Prompt
from kosmosg.prompts.tokenizer import BOS_ID, UNK_ID, KosmosGTokenizer
from miniature.world import World
from miniature.world.captions import STYLE_FRAMES
from miniature.world.description import SCENES, TINTS
from miniature.world.documents import FACTS
from miniature.world.edits import MOVES, STYLE_NOUNS
from miniature.world.vocabulary import (
    CLIP_TOKENS,
    SEED,
    sample_texts,
    write_clip_tokenizer,
    write_tokenizer,
)

PROMPTS = ("A robot, 30% oil-painting (by ‘me’): what's up?", string.printable.strip())


@pytest.fixture(scope="module")
def tokenizer(world: World, tmp_path_factory: pytest.TempPathFactory) -> KosmosGTokenizer:
    return write_tokenizer(world, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def clip_folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_clip_tokenizer(world, folder)
    return folder


@pytest.fixture(scope="module")
def clip_tokenizer(clip_folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(clip_folder)


@pytest.fixture(scope="module")
def words(world: World) -> list[str]:
    """All words of the grammar, as other texts than those of the training have them."""
    lists = (*world.nouns, *TINTS, *world.arts, *world.accessories[1:], *SCENES, *FACTS)
    phrases = (*MOVES.values(), *STYLE_NOUNS.values())
    frames = (frame.format("") for frames in STYLE_FRAMES.values() for frame in frames)
    texts = " ".join((*lists, *phrases, *frames, *sample_texts(world, SEED + 1)))
    return sorted(set(re.findall(r"\w+", texts)))


def encode(tokenizer: KosmosGTokenizer, text: str) -> list[int]:
    ids = tokenizer.tokenize_prompt(Prompt(segments=(text,)), image_slots=0).ids
    assert ids[0] == BOS_ID
    return list(ids[1:])


def read(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    first, *ids, last = tokenizer(text)["input_ids"]
    assert (first, last) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return ids


def test_every_word_is_one_token(
    tokenizer: KosmosGTokenizer, clip_tokenizer: CLIPTokenizer, words: list[str]
):
    assert len(words) > 110
    assert {word: len(encode(tokenizer, word)) for word in words} == dict.fromkeys(words, 1)
    assert {word: len(read(clip_tokenizer, word)) for word in words} == dict.fromkeys(words, 1)


def test_the_vocabularies_are_small_and_hold_nothing_made_up(
    tokenizer: KosmosGTokenizer, clip_tokenizer: CLIPTokenizer, words: list[str]
):
    assert len(tokenizer) < 300
    pieces = [symbol.removeprefix("▁") for symbol in tokenizer.symbols]
    longer = [piece for piece in pieces if len(piece) > 1 and not piece.startswith("<")]
    assert sorted(longer) == [word for word in words if len(word) > 1]
    assert len(clip_tokenizer) < 600
    assert max(clip_tokenizer.get_vocab().values()) == clip_tokenizer.eos_token_id


@pytest.mark.parametrize("prompt", PROMPTS)
def test_any_english_prompt_can_be_read(
    tokenizer: KosmosGTokenizer, clip_tokenizer: CLIPTokenizer, prompt: str
):
    plain = prompt.replace("‘", "'").replace("’", "'")
    assert UNK_ID not in encode(tokenizer, plain)
    assert clip_tokenizer.unk_token_id not in read(clip_tokenizer, plain)


def test_capitals_do_not_count(tokenizer: KosmosGTokenizer, clip_tokenizer: CLIPTokenizer):
    assert encode(tokenizer, "A Red Fox") == encode(tokenizer, "a red fox")
    assert read(clip_tokenizer, "A Red Fox") == read(clip_tokenizer, "a red fox")


def test_captions_fit_into_clip(world: World, clip_tokenizer: CLIPTokenizer):
    lengths = [len(clip_tokenizer(text)["input_ids"]) for text in sample_texts(world, SEED + 1)]
    assert max(lengths) <= CLIP_TOKENS == clip_tokenizer.model_max_length


def test_the_same_files_each_time(world: World, tmp_path: Path, clip_folder: Path):
    one, other = write_tokenizer(world, tmp_path / "a"), write_tokenizer(world, tmp_path / "b")
    assert one.symbols == other.symbols
    write_clip_tokenizer(world, tmp_path / "a")
    sample_texts.cache_clear()
    write_clip_tokenizer(world, tmp_path / "b")
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == files


def test_clip_reads_the_form_of_its_own_vocabulary(
    world: World, clip_folder: Path, clip_tokenizer: CLIPTokenizer, tmp_path: Path
):
    """``vocab.json`` and ``merges.txt`` say the same as ``tokenizer.json``."""
    vocabulary = json.loads((clip_folder / "vocab.json").read_text())
    lines = (clip_folder / "merges.txt").read_text().splitlines()
    merges = [tuple(line.split()) for line in lines if not line.startswith("#version")]
    rebuilt = CLIPTokenizer(vocab=vocabulary, merges=merges)  # type: ignore[arg-type]
    for text in (*sample_texts(world, SEED + 1)[:300], *PROMPTS):
        assert rebuilt(text)["input_ids"] == clip_tokenizer(text)["input_ids"]
    clip_tokenizer.save_pretrained(tmp_path)
    saved = (tmp_path / "tokenizer.json").read_bytes()
    assert saved == (clip_folder / "tokenizer.json").read_bytes()

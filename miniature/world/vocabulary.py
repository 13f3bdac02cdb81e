"""The two vocabularies of the world: of the language model, and of CLIP's text encoder.

Both are learned from texts of the world itself, so that every word of its grammar is one token
and a prompt is as short as it can be. Any other English prompt falls apart into letters, which
are there for that alone; neither knows capitals, as the world has none.
"""

import json
import re
import string
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import sentencepiece
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from kosmosg.prompts.tokenizer import (
    DICTIONARY_FILE,
    LEADING_SYMBOLS,
    SENTENCEPIECE_FILE,
    KosmosGTokenizer,
)
from miniature.world.captions import write_caption
from miniature.world.documents import sample_document, sample_sentence
from miniature.world.edits import KINDS, sample_edit
from miniature.world.world import World

SEED = 0
CAPTIONS, SENTENCES, DOCUMENTS, EDITS_OF_A_KIND = 2000, 3000, 100, 60
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
ENTRIES = 1000  # more than there are; the learning of pieces stops before
CLIP_TOKENS = 32  # longest caption that CLIP reads, <|startoftext|> and <|endoftext|> included
CLIP_SYMBOLS = ("<|startoftext|>", "<|endoftext|>")
WORD_END = "</w>"


def write_tokenizer(world: World, directory: Path) -> KosmosGTokenizer:
    """Write the language model's vocabulary: a SentencePiece model and fairseq's dictionary.

    Args:
        world: Has the nouns.
        directory: Where to; made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    model = BytesIO()
    # One thread: sums of several ones would differ in their last digits.
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(world),
        model_writer=model,
        model_type="unigram",
        vocab_size=ENTRIES,
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars=CHARACTERS,
        normalization_rule_name="nmt_nfkc_cf",
        num_threads=1,
        minloglevel=2,
    )
    (directory / SENTENCEPIECE_FILE).write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = (processor.id_to_piece(number) for number in range(len(processor)))
    lines = (f"{piece} 1\n" for piece in pieces if piece not in LEADING_SYMBOLS)
    (directory / DICTIONARY_FILE).write_text("".join(lines), encoding="utf-8")
    return KosmosGTokenizer.from_pretrained(directory)


def write_clip_tokenizer(world: World, directory: Path) -> CLIPTokenizer:
    """Write a vocabulary for CLIP's text encoder, laid out as CLIP's own.

    That is: characters, characters that end a word, merges, the two symbols. Only the 256 bytes
    that CLIP begins with are cut down to the characters of English; any other is unknown.

    Args:
        world: Has the nouns.
        directory: Where to; made if missing.
    """
    merges = _learn_merges(world)
    symbols = [*CHARACTERS, *(character + WORD_END for character in CHARACTERS)]
    symbols += ["".join(merge) for merge in merges] + [*CLIP_SYMBOLS]
    tokenizer = CLIPTokenizer(
        vocab={symbol: number for number, symbol in enumerate(symbols)},
        merges=merges,  # type: ignore[arg-type]  # pairs, as the library underneath takes them
        model_max_length=CLIP_TOKENS,
    )
    tokenizer.save_pretrained(directory)
    # vocab.json and merges.txt, the form in which CLIP's vocabulary was published.
    tokenizer.backend_tokenizer.model.save(str(directory))
    return tokenizer


@cache
def sample_texts(world: World, seed: int = SEED) -> tuple[str, ...]:
    """Draw texts of every kind that the world has, without the places of images."""
    rng = np.random.default_rng(seed)
    texts = [write_caption(world, world.sample_description(rng), rng).text for _ in range(CAPTIONS)]
    texts += [sample_sentence(world, rng) for _ in range(SENTENCES)]
    for _ in range(DOCUMENTS):
        texts += [part for part in sample_document(world, rng).parts if isinstance(part, str)]
    for kind in KINDS * EDITS_OF_A_KIND:
        if kind != "accessory" or world.accessories[1:]:
            texts.append(sample_edit(world, rng, kind=kind).instruction)
    return tuple(text.strip() for text in texts if text.strip())


def _lines(world: World) -> Iterator[str]:
    """Yield what the pieces are learned from."""
    yield from sample_texts(world)
    # The trainer considers as a piece what it has seen in two surroundings. This is the second
    # one of every word; no text of the world has a semicolon.
    words = sorted({word for text in sample_texts(world) for word in re.findall(r"\w+", text)})
    yield from (f"{word};" for word in words)


def _learn_merges(world: World) -> list[tuple[str, str]]:
    """Learn byte pairs until every word is one symbol, from words as CLIP finds them."""
    clip = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(BPE(end_of_word_suffix=WORD_END))
    learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=ENTRIES,
        min_frequency=1,
        initial_alphabet=[*CHARACTERS],
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(sample_texts(world), trainer)
    return [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]

"""Entities from captions: an instruction-tuned language model is asked, and not trusted.

Paper, section 3.1. The prompt is our own. The answer is a list, of which only what stands in the
caption, as whole words, is kept.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from kosmosg.curation.captioning import greedy
from kosmosg.curation.models import load_model
from kosmosg.curation.records import EntityRule, Outcome, Record, Rejected, set_aside
from kosmosg.data.entities import COLOURS

PROMPT = """\
Below is the caption of a photograph. Name what could be cut out of the photograph: the people, \
animals and objects in its foreground.

Copy each name letter by letter from the caption: the noun alone, or the nouns that belong \
together, without articles, numbers, colours and other adjectives. Leave out what is scenery \
(sky, beach, street, room), light and time of day, actions, parts of something else, and the \
words photo, image and view. Answer with one line: the names, separated by commas, or the word \
none if there are none.

Caption: a woman in a red coat walking two dogs through the snow
Answer: woman, coat, dogs

Caption: a photo of the city at night
Answer: none

Caption: a hot dog next to a glass of orange juice on a wooden table
Answer: hot dog, glass, table

Caption: {caption}
Answer:"""
# For models without a chat template, such as the paper's MPT-7B-Instruct, which was tuned on it.
PLAIN = "### Instruction:\n{prompt}\n\n### Response:\n"
NONE = re.compile(r"none\.?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a language model said.

    Attributes:
        text: Its words.
        ended: Whether it came to an end by itself, rather than at the limit of its length.
    """

    text: str
    ended: bool


Finder = Callable[[Sequence[str]], list[Answer]]


class LanguageModel:
    """An instruction-tuned language model of any kind."""

    def __init__(self, model: Any, tokenizer: Any, tokens: int):
        self._model, self._tokenizer = model, tokenizer
        self._generation = greedy(model, tokenizer, tokens)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @classmethod
    def load(cls, name: str, tokens: int) -> "LanguageModel":
        """Open a model.

        Args:
            name: A folder or Hub id.
            tokens: Longest answer.

        Raises:
            WeightsError: If it cannot be had.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model, tokenizer = load_model(AutoModelForCausalLM, name, AutoTokenizer, wide=True)
        return cls(model, tokenizer, tokens)

    @torch.inference_mode()
    def __call__(self, captions: Sequence[str]) -> list[Answer]:
        """Ask for the entities of each caption."""
        encoded = self._tokenizer(
            [self._prompt(caption) for caption in captions],
            add_special_tokens=not self._tokenizer.chat_template,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self._model.device)
        ids = self._model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            generation_config=self._generation,
        )[:, encoded["input_ids"].shape[1] :]
        ends = self._generation.eos_token_id
        ends = torch.tensor(ends if isinstance(ends, list) else [ends], device=ids.device)
        ended = torch.isin(ids, ends).any(dim=1).tolist()
        texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [Answer(text=text, ended=end) for text, end in zip(texts, ended, strict=True)]

    def _prompt(self, caption: str) -> str:
        prompt = PROMPT.format(caption=caption)
        if not self._tokenizer.chat_template:
            return PLAIN.format(prompt=prompt)
        return self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )


class FindEntities:
    """Finds the entities of each record in its caption."""

    name = "entities"

    def __init__(self, finder: Finder, batch: int):
        self.batch = batch
        self._finder = finder

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """Ask about the captions of some records."""
        answers = self._finder([record.caption for record in records])
        return [_with_tags(record, answer) for record, answer in zip(records, answers, strict=True)]


def parse_answer(
    answer: Answer, caption: str
) -> tuple[tuple[str, ...], tuple[tuple[str, EntityRule], ...]]:
    """Read a list of entities.

    ``"man, Dogs, unicorn"`` for ``"a man with two dogs"`` gives the tags ``man`` and ``dogs``, and
    drops ``unicorn``.

    Returns:
        The entities as the caption spells them, each once, and those dropped, each with why.

    Raises:
        Rejected: If it is no list, or names nothing.
    """
    line, newline, _ = answer.text.strip().partition("\n")
    if not line or "#" in line or ":" in line:
        raise Rejected("bad-answer", repr(answer.text[:200]))
    if NONE.fullmatch(line.strip()):
        raise Rejected("no-entities", repr(line.strip()))
    names = [name.strip() for name in line.strip().removesuffix(".").split(",")]
    dropped: list[tuple[str, EntityRule]] = []
    if not (answer.ended or newline):
        dropped.append((names.pop(), "cut-off"))
    tags: dict[str, str] = {}
    for name in filter(None, names):
        found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", caption, re.IGNORECASE)
        if found is None:
            dropped.append((name, "not-in-caption"))
        elif name.lower() in COLOURS:
            dropped.append((name, "colour"))
        else:
            tags.setdefault(name.lower(), found[0])
    return tuple(tags.values()), tuple(dropped)


def _with_tags(record: Record, answer: Answer) -> Outcome:
    try:
        tags, dropped = parse_answer(answer, record.caption)
    except Rejected as why:
        return set_aside(record, why.reason, why.detail)
    record = replace(record, tags=tags, dropped=dropped)
    if not tags:
        return set_aside(record, "entities-not-in-caption", repr(answer.text[:200]))
    return record

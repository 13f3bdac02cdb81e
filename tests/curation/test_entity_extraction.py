"""Answers of language models: lists are read, and only what the caption says is believed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmosg.curation.entity_extraction import PROMPT, Answer, FindEntities, parse_answer
from kosmosg.curation.records import Record, Rejected, Rejection
from kosmosg.data.entities import match_tags

CAPTION = "A man's Dog and two hot dogs on a red table, a man-made orange"


def parse(text: str, caption: str = CAPTION, ended: bool = True) -> tuple[str, ...]:
    return parse_answer(Answer(text=text, ended=ended), caption)[0]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("dog, table", ("Dog", "table")),  # as the caption spells them
        (" dog ,table. ", ("Dog", "table")),
        ("man", ("man",)),
        ("dog,, table,", ("Dog", "table")),
        ("table\nnot a thing, man", ("table",)),  # one line only
        ("dog, DOG, Dog", ("Dog",)),
        ("hot dogs", ("hot dogs",)),
        ("hot dog, table", ("table",)),  # half a word is none
        ("unicorn, table", ("table",)),
        ("red, table, orange", ("table",)),  # colours, even as fruit
        ("two hot dogs on", ("two hot dogs on",)),
        ("dogs on a red table", ("dogs on a red table",)),
        ("(dog), table", ("table",)),
        (".*, table", ("table",)),  # no pattern
    ],
)
def test_lists(text: str, tags: tuple[str, ...]) -> None:
    assert parse(text) == tags


def test_what_is_left_out_is_named() -> None:
    answer = Answer(text="unicorn, red, Table, dog", ended=True)
    assert parse_answer(answer, CAPTION) == (
        ("table", "Dog"),
        (("unicorn", "not-in-caption"), ("red", "colour")),
    )


def test_an_answer_that_was_cut_off() -> None:
    """Its last entry may be the beginning of another one."""
    assert parse("table, hot", "a hot dog on a table", ended=False) == ("table",)
    assert parse("table, hot\n", "a hot dog on a table") == ("table", "hot")
    assert parse("table, dog\nand", "a dog on a table", ended=False) == ("table", "dog")
    assert parse("table", "a table", ended=False) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("none", "no-entities"),
        ("None.", "no-entities"),
        ("none\nCaption: a dog", "no-entities"),
        ("", "bad-answer"),
        (" \n ", "bad-answer"),
        ("# dog", "bad-answer"),
        ("### Response: dog", "bad-answer"),
        ("Answer: dog", "bad-answer"),
    ],
)
def test_no_lists(text: str, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse(text)
    assert caught.value.reason == reason


words = st.text(st.sampled_from("ab ,.'-#:\n()\u00e9"), max_size=25)


@settings(deadline=None)
@given(caption=words, answer=words, ended=st.booleans())
def test_nothing_comes_out_that_is_not_in_the_caption(
    caption: str, answer: str, ended: bool
) -> None:
    try:
        tags = parse(answer, caption, ended)
    except Rejected:
        return
    assert all(tag and tag in caption for tag in tags)
    assert len({tag.lower() for tag in tags}) == len(tags)
    for tag in tags:  # the reader of training data finds each of them alone
        assert match_tags(caption, [tag])


def test_records_keep_what_was_found_and_what_was_not() -> None:
    answers = {"a dog": "dog, cat", "a cat": "none", "a cow": "horse"}

    def ask(captions: list[str]) -> list[Answer]:
        return [Answer(text=answers[caption], ended=True) for caption in captions]

    step = FindEntities(ask, batch=8)  # type: ignore[arg-type]
    dog, cat, cow = step([Record(key=caption, caption=caption) for caption in answers])
    assert isinstance(dog, Record)
    assert (dog.tags, dog.dropped) == (("dog",), (("cat", "not-in-caption"),))
    assert isinstance(cat, Rejection)
    assert (cat.reason, cat.failed) == ("no-entities", False)
    assert isinstance(cow, Rejection)
    assert cow.reason == "entities-not-in-caption"
    assert cow.dropped == (("horse", "not-in-caption"),)


def test_captions_with_braces_do_not_break_the_prompt() -> None:
    assert "Caption: a {dog}\nAnswer:" in PROMPT.format(caption="a {dog}")


@pytest.mark.parametrize("block", [block for block in PROMPT.split("\n\n") if "Answer: " in block])
def test_the_examples_in_the_prompt_are_right(block: str) -> None:
    """Each answers its own caption by the rules that are asked for."""
    first, second = block.splitlines()
    caption, answer = first.removeprefix("Caption: "), second.removeprefix("Answer: ")
    if answer != "none":
        assert parse(answer, caption) == tuple(answer.split(", "))
        assert len(match_tags(caption, answer.split(", "))) == len(answer.split(", "))

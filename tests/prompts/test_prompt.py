"""Prompts: parsing and token layout."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmosg.errors import PromptError, WeightsError
from kosmosg.prompts.prompt import MARKER, parse_prompt, parse_text
from kosmosg.prompts.tokenizer import DICTIONARY_FILE, SENTENCEPIECE_FILE, KosmosGTokenizer
from tests import tiny


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", ("",)),
        ("a dog", ("a dog",)),
        ("<i>", ("", "")),
        ("<i> wearing <i>", ("", " wearing ", "")),
        ("a<i>b", ("a", "b")),
        ("<i><i>", ("", "", "")),
        ("<I> < i > <i/>", ("<I> < i > <i/>",)),
        ("<<i>>", ("<", ">")),
    ],
)
def test_segments(text: str, segments: tuple[str, ...]) -> None:
    assert parse_prompt(text, len(segments) - 1).segments == segments


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        ("<i>", 0, "1 <i> marker, but 0 input images"),
        ("a dog", 1, "0 <i> markers, but 1 input image "),
        ("<i> <i> <i>", 2, "3 <i> markers, but 2 input images"),
    ],
)
def test_counts_that_differ(text: str, images: int, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        parse_prompt(text, images)


def test_a_marker_without_any_image_names_the_inputs() -> None:
    """A caller may have sent the image under a name that the server does not know."""
    with pytest.raises(PromptError, match="image1 to image4 and images"):
        parse_prompt("<i>", 0)


@pytest.mark.parametrize("value", [None, 3, b"<i>", ["<i>"]])
def test_what_is_no_text(value: object) -> None:
    with pytest.raises(PromptError, match="must be text"):
        parse_prompt(value, 0)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="must be text"):
        parse_text(value)  # type: ignore[arg-type]


def test_half_a_character() -> None:
    with pytest.raises(PromptError, match=r"half a character \(U\+D83C\) at position 2"):
        parse_prompt("a \ud83c", 0)


@given(st.lists(st.text().filter(lambda text: MARKER not in text), min_size=1, max_size=6))
def test_any_text_survives(segments: list[str]) -> None:
    """Joining and cutting are inverse, unless neighbours form a marker at the seam."""
    text = MARKER.join(segments)
    prompt = parse_prompt(text, text.count(MARKER))
    assert prompt.text == text
    assert prompt.image_count == text.count(MARKER)


@given(st.text())
def test_negative_prompts_hold_no_images(text: str) -> None:
    assert parse_text(text).segments == (text,)


# ------------------------------------------------------------------ tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> KosmosGTokenizer:
    return tiny.write_tokenizer(tmp_path_factory.mktemp("tokenizer"), 320)


def test_layout_of_an_image(tokenizer: KosmosGTokenizer) -> None:
    """The start id stands once more than there are slots, and keeps its own embedding."""
    start, end = 316, 317
    found = tokenizer.tokenize_prompt(parse_prompt("<i> dog", 1), image_slots=3)
    (dog,) = tokenizer.tokenize_prompt(parse_text("dog"), image_slots=3).ids[1:]
    assert found.ids == (0, start, start, start, start, end, dog)
    assert found.image_mask == (False, False, True, True, True, False, False)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_prompt_gives_ids_within_the_vocabulary(
    tokenizer: KosmosGTokenizer, segments: list[str]
) -> None:
    text = MARKER.join(segments)
    prompt = parse_prompt(text, text.count(MARKER))
    found = tokenizer.tokenize_prompt(prompt, image_slots=8)
    assert len(found.ids) == len(found.image_mask)
    assert found.ids[0] == 0
    assert all(0 <= token < len(tokenizer) for token in found.ids)
    assert sum(found.image_mask) == 8 * prompt.image_count
    assert 2 not in found.ids, "the end-of-sentence symbol is never written"


def test_special_symbols_typed_by_a_user_are_text(tokenizer: KosmosGTokenizer) -> None:
    found = tokenizer.tokenize_prompt(parse_text("<image> </image> <pad> </s>"), image_slots=8)
    assert {1, 2, 316, 317}.isdisjoint(found.ids)


def test_saving_and_opening(tokenizer: KosmosGTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)  # onto itself
    again = KosmosGTokenizer.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path)
    prompt = parse_text("a red dog in the garden")
    assert again.tokenize_prompt(prompt, 8) == tokenizer.tokenize_prompt(prompt, 8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (DICTIONARY_FILE, None, "lacks dict.txt"),
        (SENTENCEPIECE_FILE, None, "lacks sentencepiece"),
        (DICTIONARY_FILE, b"dog 1\ndog 1\n", "'dog' stands there twice"),
        (DICTIONARY_FILE, b"dog 1\n<image> 1\n", "'<image>' stands there twice"),
        (DICTIONARY_FILE, b"dog 1\nno count\n", "line 2: wanted 'piece count'"),
        (DICTIONARY_FILE, b"\xff\xfe 1\n", "not UTF-8"),
        (SENTENCEPIECE_FILE, b"not a model", "not a SentencePiece model"),
        (SENTENCEPIECE_FILE, b"", "not a SentencePiece model"),
    ],
)
def test_broken_files(
    tokenizer: KosmosGTokenizer, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        KosmosGTokenizer.from_pretrained(tmp_path)


def test_it_is_a_tokenizer_of_transformers(tokenizer: KosmosGTokenizer, tmp_path: Path) -> None:
    found = tokenizer(["a dog", "a red dog <image>"], padding=True, return_tensors="pt")
    first, second = (
        tokenizer.tokenize_prompt(parse_text(text), 8).ids
        for text in ("a dog", "a red dog <image>")
    )
    padding = [tokenizer.pad_token_id] * (len(second) - len(first))
    assert found.input_ids.tolist() == [[*first, *padding], [*second]]
    assert found.attention_mask.sum(1).tolist() == [len(first), len(second)]
    assert tokenizer.batch_decode(found.input_ids, skip_special_tokens=True)[0] == "a dog"
    assert 316 in tokenizer("<image>", split_special_tokens=False).input_ids
    assert len(tokenizer) == tokenizer.vocab_size == 320
    tokenizer.save_pretrained(tmp_path)
    again = pickle.loads(pickle.dumps(KosmosGTokenizer.from_pretrained(tmp_path)))
    assert len(again) == 320
    assert again("a dog </s>").input_ids == tokenizer("a dog </s>").input_ids

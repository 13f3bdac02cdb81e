"""Columns of a table → samples, for each kind of public set, and what fits none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.columns import choose_columns, known_columns
from kosmosg.data.options import NamedData
from kosmosg.data.schema import CaptionRules, CaptionSample, EditSample, SubjectSample
from kosmosg.errors import DataError
from tests.tables import embedded, png

RULES = CaptionRules(min_side=8)
RED, BLACK = embedded(png(200)), embedded(png(0))


def read(name: str, row: dict[str, Any], folder: Path | None = None, rules=RULES) -> Any:
    chosen = known_columns()[name]
    return chosen.sample(row, rules, folder, np.random.default_rng(0))


def test_every_kind() -> None:
    assert read("texts", {"text": "a cat"}) == CaptionSample(caption="a cat", image=None)
    found = read("captions", {"image": RED, "caption": "a cat"})
    assert found.image.getpixel((0, 0)) == (200, 0, 0)
    edit = {"input_image": RED, "edit_prompt": "darker", "edited_image": BLACK}
    found = read("edits", edit)
    assert isinstance(found, EditSample)
    assert (found.caption, found.instruction) == ("", "darker")
    assert (found.before.getpixel((0, 0)), found.after.getpixel((0, 0))) == ((200, 0, 0), (0, 0, 0))
    edit = {"original_image": RED, "edited_image": BLACK, "original_prompt": "a cat"}
    assert read("instructpix2pix", edit | {"edit_prompt": "darker"}).caption == "a cat"
    row = {"prompt": "both", "source_images": [RED, BLACK, None], "target_image": RED}
    found = read("metaquery", row)
    assert isinstance(found, SubjectSample)
    assert found.prompt == "both" and len(found.images) == 2
    assert found.images[1].getpixel((0, 0)) == (0, 0, 0)


def test_one_of_several_texts_is_drawn() -> None:
    texts = ["make it red", "turn red"]
    row = {"src_img": RED, "edited_img": BLACK, "edited_prompt_list": texts}
    chosen = known_columns()["omniedit"]
    drawn = {
        chosen.sample(row, RULES, None, np.random.default_rng(seed)).instruction  # type: ignore
        for seed in range(9)
    }
    assert drawn == set(texts)


def test_images_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "a.png").write_bytes(png(1))
    (tmp_path / "elsewhere.png").write_bytes(png(2))
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    row = {"instruction": "a hat", "input_images": ["images/a.png"], "output_image": "images/a.png"}
    assert read("x2i2", row, tmp_path / "set").target.getpixel((0, 0)) == (1, 0, 0)
    for name, reason in (
        ("../elsewhere.png", "metadata"),
        (str(tmp_path / "elsewhere.png"), "metadata"),
        ("link.png", "metadata"),
        ("/etc/passwd", "metadata"),
        ("images/b.png", "unreadable"),
        ("images/a\0.png", "unreadable"),
        ("images/a.gif0", "image-format"),
        ("images", "image-format"),
    ):
        with pytest.raises(BadSample) as caught:
            read("x2i2", row | {"output_image": name}, tmp_path / "set")
        assert caught.value.reason == reason, name
    with pytest.raises(BadSample, match="on the Hub, images must be in the table"):
        read("x2i2", row)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"caption": None}, "metadata"),
        ({"caption": 3}, "metadata"),
        ({"caption": []}, "metadata"),
        ({"caption": "\ud800"}, "encoding"),
        ({"image": None}, "missing-part"),
        ({"image": embedded(None)}, "missing-part"),
        ({"image": embedded(b"")}, "missing-part"),
        ({"image": embedded(png()[:40])}, "image"),
        ({"image": 7}, "metadata"),
        ({"image": {"url": "https://example.org"}}, "metadata"),
        ({"image": embedded(png(side=4))}, "too-small"),
    ],
)
def test_rows_that_cannot_be_used(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadSample) as caught:
        read("captions", {"image": RED, "caption": "a cat"} | change)
    assert caught.value.reason == reason


def test_rows_without_a_column_or_an_image() -> None:
    with pytest.raises(BadSample, match="this row has no column 'image'"):
        read("captions", {"caption": "a"})
    with pytest.raises(BadSample, match="no image in source_images"):
        read("metaquery", {"prompt": "a", "source_images": [None], "target_image": RED})


def test_stage_two_leaves_images_closed() -> None:
    rules = CaptionRules(text_only=True)
    assert read("captions", {"caption": "a"}, rules=rules) == CaptionSample(caption="a", image=None)
    assert known_columns()["captions"].read_of(rules) == ("caption",)


@pytest.mark.parametrize(
    ("named", "there", "wanted"),
    [
        ("a", ["caption", "image", "url"], "captions"),
        ("a", ["caption", "url"], "captions-without-images"),
        ("a", ["text"], "texts"),
        ("a", ["edit_prompt", "input_image", "edited_image"], "edits"),
        ("a,columns=texts", ["text", "image"], "texts"),
        ("hub:xcpan/MetaQuery_Instruct_2.4M_512res", known_columns()["metaquery"].wanted,
         "metaquery"),
    ],
)  # fmt: skip
def test_which_mapping_is_chosen(named: str, there: list[str], wanted: str) -> None:
    assert choose_columns(NamedData.parse(named), there).name == wanted


@pytest.mark.parametrize(
    ("named", "there", "messages"),
    [
        ("a", ["img", "prompt"], ["a has the columns img, prompt, which no mapping fits",
                                  "captions wants caption, image", "a,columns=FILE.toml"]),
        ("a", ["caption", "text", "image"], ["fits captions and image-text. Choose one: a,columns="
                                             "captions"]),
        ("a,columns=edits", ["caption", "image"], [
            "has no column input_image, edited_image, edit_prompt, which the mapping edits takes",
            "it has caption, image. What fits: captions"]),
        ("hub:OmniGen2/X2I2", ["text"], ["has no column instruction", "What fits: texts",
                                         "hub:OmniGen2/X2I2,columns=NAME"]),
        ("a,columns=edit", ["text"], ["columns=edit: there is no such mapping. Choose one of "
                                      "texts, "]),
    ],
)  # fmt: skip
def test_columns_that_fit_no_mapping(named: str, there: list[str], messages: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        choose_columns(NamedData.parse(named), there)
    for message in messages:
        assert message in str(caught.value)


def test_a_mapping_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[mine]\nkind = "subject"\nprompt = "p"\nimages = ["x", "y"]\ntarget = "z"\n')
    chosen = choose_columns(NamedData.parse(f"a,columns={file}"), ["p", "x", "y", "z", "url"])
    row = {"p": "both", "x": RED, "y": BLACK, "z": RED}
    found = chosen.sample(row, RULES, None, np.random.default_rng(0))
    assert isinstance(found, SubjectSample) and len(found.images) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a", "is no TOML"),
        ("", "has 0 mappings. Leave one in it."),
        ("a = 3", "a has the kind None"),
        ('[a]\nkind = "films"', "has the kind 'films'. Write .a. and below it kind = one of capt"),
        ('[a]\nkind = ["edit"]', "has the kind .'edit'.. Write .a."),
        ("a = " + "[" * 3000 + "]" * 3000, "is no TOML"),
        ('[a]\nkind = "caption"\ncaption = "b"\nsets = 3', "has sets = 3. Write a list"),
        ('[a]\nkind = "caption"\ncaption = "b"\nsets = "o/n"', "has sets = 'o/n'"),
        ('[a]\nkind = "edit"\nbefore = "b"', "a lacks after, instruction. The kind edit names"),
        ('[a]\nkind = "caption"\ncaption = "b"\nimg = "c"', "does not know img"),
        ('[a]\nkind = "caption"\ncaption = 3', "a has caption = 3. Name a column."),
        ('[a]\nkind = "caption"\ncaption = ["b", "c"]', "several columns for caption. Name one."),
    ],
)
def test_mappings_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        choose_columns(NamedData.parse(f"a,columns={file}"), ["b"])
    with pytest.raises(DataError, match=r"columns=.*other.toml cannot be read"):
        choose_columns(NamedData.parse(f"a,columns={tmp_path}/other.toml"), ["b"])

"""Counts and sheets: what a run made, for people."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from kosmosg.curation.output import Ledger, Totals, make_table
from kosmosg.curation.preview import draw_cards, make_card, mark, write_report
from kosmosg.curation.records import Draft, Portion, Rejection, Tally
from kosmosg.data.schema import CaptionSample, CompositionalSample, EditSample, Entity, Sample
from kosmosg.data.shard_writer import encode_sample


def plain(colour: str, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.new("RGB", size, colour)


COMPOSITIONAL = CompositionalSample(
    caption="a cat and a dog",
    entities=(
        Entity(span=(2, 5), crop=plain("red"), masked_crop=plain("orange")),
        Entity(span=(12, 15), crop=plain("green"), masked_crop=plain("lime")),
    ),
    target=plain("blue"),
)
EDIT = EditSample(
    caption="a cat", instruction="a hat", before=plain("red"), after=plain("blue", (64, 32))
)
CAPTION = CaptionSample(caption="a cat", image=plain("red"))


def portion(number: int, samples: list[Sample], came: int) -> Portion:
    drafts = tuple(
        Draft(key=str(n), files=encode_sample(sample), tags=("cat",), dropped=(("x", "colour"),))
        for n, sample in enumerate(samples)
    )
    reasons = ("too-small", "image", "one-colour", "image")
    aside = tuple(
        Rejection(key="r", step="read", reason=reasons[n % 4], detail="…")  # type: ignore[arg-type]
        for n in range(came - len(drafts))
    )
    tallies = (
        Tally(step="read", came=came, kept=len(drafts), seconds=0.5),
        Tally(step="cut", came=len(drafts), kept=len(drafts), seconds=1.0),
    )
    return Portion(number=number, drafts=drafts, set_aside=aside, tallies=tallies)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(directory=tmp_path / "set", per_shard=8)
    ledger.begin({"set": "mixed"})
    ledger.write(portion(0, [COMPOSITIONAL, EDIT, CAPTION], came=7))
    ledger.write(portion(1, [], came=2))
    ledger.write(portion(2, [CAPTION], came=1))
    return ledger


def test_counts(ledger: Ledger) -> None:
    table = write_report(ledger, {"set": "mixed"}, planned=4)
    size = sum(path.stat().st_size for path in ledger.directory.glob("*.tar"))
    assert table == (ledger.directory / "report.md").read_text("utf-8")
    assert table.splitlines() == [
        "| step | came | kept | filtered | failed | s each |",
        "|---|---:|---:|---|---|---:|",
        "| read | 10 | 4 | 1 one-colour, 2 too-small | 3 image | 0.150 |",
        "| cut | 4 | 4 | – | – | 0.750 |",
        "",
        f"4 samples ({size / 1e9:.3f} GB) in 3 of 4 shards.",
        "4 entities; dropped: 4 colour.",
    ]
    report = json.loads((ledger.directory / "report.json").read_text("utf-8"))
    assert report["settings"] == {"set": "mixed"}
    assert report["shards"] == {"finished": 3, "planned": 4}
    assert (report["samples"], report["bytes"]) == (4, size)
    assert report["steps"]["read"] == {
        "came": 10,
        "kept": 4,
        "filtered": {"one-colour": 1, "too-small": 2},
        "failed": {"image": 3},
        "seconds": 1.5,
    }
    assert report["entities"] == {"colour": 4, "kept": 4}


def test_before_anything_is_finished(tmp_path: Path) -> None:
    ledger = Ledger(directory=tmp_path / "set", per_shard=8)
    ledger.begin({})
    assert "0 samples (0.000 GB) in 0 of 9 shards." in write_report(ledger, {}, planned=9)
    assert not (ledger.directory / "sheet.html").exists()
    assert "| –" not in make_table(Totals.of([]), 0)


def test_a_sheet_shows_samples_of_all_shards(ledger: Ledger) -> None:
    table = write_report(ledger, {}, planned=3)
    sheet = (ledger.directory / "sheet.html").read_text("utf-8")
    assert table in unescape(sheet)
    assert re.findall("<h2>(.*)</h2>", sheet) == ["000000.tar", "000002.tar"]
    assert re.findall("<figcaption>(.*?)<", sheet) == [
        *("a [cat] and a [dog]", "a cat → a hat", "a cat", "a cat")
    ]
    assert sheet.count("<img") == 5 + 2 + 1 + 1
    assert len(list(draw_cards(ledger, count=1, seed=3))) == 1
    assert list(draw_cards(ledger, count=2)) == list(draw_cards(ledger, count=2))


def test_captions_are_no_html(tmp_path: Path) -> None:
    ledger = Ledger(directory=tmp_path / "set", per_shard=8)
    ledger.begin({})
    hostile = CaptionSample(caption="<script>alert(1)</script>", image=plain("red"))
    ledger.write(portion(0, [hostile], came=1))
    write_report(ledger, {}, planned=1)
    assert "<script" not in (ledger.directory / "sheet.html").read_text("utf-8")


def test_cards() -> None:
    card = make_card(COMPOSITIONAL, "0.tar")
    assert (card.group, card.prompt) == ("0.tar", "a [cat] and a [dog]")
    shown = [picture.getpixel((9, 9)) for picture in (*card.inputs, card.output)]
    colours = ("red", "orange", "green", "lime", "blue")
    assert shown == [plain(colour).getpixel((0, 0)) for colour in colours]
    card = make_card(EDIT, "0.tar")
    assert (card.prompt, len(card.inputs)) == ("a cat → a hat", 1)
    assert card.output.size == (64, 32)
    assert list(make_card(CAPTION, "0.tar").inputs) == []


def test_marks() -> None:
    assert mark("a cat", [(2, 5)]) == "a [cat]"
    assert mark("cat dog", [(0, 3), (4, 7)]) == "[cat] [dog]"
    assert mark("nothing", []) == "nothing"

"""Counts and sheets: what a run made, for people."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from kosmosg.curation.output import OutputFolder
from kosmosg.curation.preview import make_card, mark, pick_cards, write_report
from kosmosg.curation.records import Record, Rejection, ShardRecords, StepCounts
from kosmosg.curation.totals import Totals, make_table
from kosmosg.data.encoding import encode_sample
from kosmosg.data.schema import CaptionSample, CompositionalSample, EditSample, EntityImages, Sample


def plain(colour: str, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.new("RGB", size, colour)


COMPOSITIONAL = CompositionalSample(
    caption="a cat and a dog",
    entities=(
        EntityImages(span=(2, 5), crop=plain("red"), masked_crop=plain("orange")),
        EntityImages(span=(12, 15), crop=plain("green"), masked_crop=plain("lime")),
    ),
    target=plain("blue"),
)
EDIT = EditSample(
    caption="a cat", instruction="a hat", before=plain("red"), after=plain("blue", (64, 32))
)
CAPTION = CaptionSample(caption="a cat", image=plain("red"))


def shard(number: int, samples: list[Sample], came: int) -> ShardRecords:
    records = tuple(
        Record(key=str(n), files=encode_sample(sample), tags=("cat",), dropped=(("x", "colour"),))
        for n, sample in enumerate(samples)
    )
    reasons = ("too-small", "image", "one-colour", "image")
    aside = tuple(
        Rejection(key="r", step="read", reason=reasons[n % 4], detail="…")  # type: ignore[arg-type]
        for n in range(came - len(records))
    )
    counts = (
        StepCounts(step="read", came=came, kept=len(records), seconds=0.5),
        StepCounts(step="cut", came=len(records), kept=len(records), seconds=1.0),
    )
    return ShardRecords(number=number, records=records, set_aside=aside, counts=counts)


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    output = OutputFolder(directory=tmp_path / "set", per_shard=8)
    output.begin({"set": "mixed"})
    output.write(shard(0, [COMPOSITIONAL, EDIT, CAPTION], came=7))
    output.write(shard(1, [], came=2))
    output.write(shard(2, [CAPTION], came=1))
    return output


def test_counts(output: OutputFolder) -> None:
    table, totals = write_report(output, {"set": "mixed"}, planned=4)
    assert totals.reasons == {"image": 3, "too-small": 2, "one-colour": 1}
    size = sum(path.stat().st_size for path in output.directory.glob("*.tar"))
    assert table == (output.directory / "report.md").read_text("utf-8")
    assert table.splitlines() == [
        "| step | came | kept | filtered | failed | s each |",
        "|---|---:|---:|---|---|---:|",
        "| read | 10 | 4 | 1 one-colour, 2 too-small | 3 image | 0.150 |",
        "| cut | 4 | 4 | – | – | 0.750 |",
        "",
        f"4 samples ({size / 1e9:.3f} GB) in 3 of 4 shards.",
        "4 entities; dropped: 4 colour.",
    ]
    report = json.loads((output.directory / "report.json").read_text("utf-8"))
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
    output = OutputFolder(directory=tmp_path / "set", per_shard=8)
    output.begin({})
    table, totals = write_report(output, {}, planned=9)
    assert "0 samples (0.000 GB) in 0 of 9 shards." in table
    assert (totals.samples, totals.reasons) == (0, {})
    assert not (output.directory / "sheet.html").exists()
    assert "| –" not in make_table(Totals.of([]), 0)


def test_a_sheet_shows_samples_of_all_shards(output: OutputFolder) -> None:
    table, _ = write_report(output, {}, planned=3)
    sheet = (output.directory / "sheet.html").read_text("utf-8")
    assert table in unescape(sheet)
    assert re.findall("<h2>(.*)</h2>", sheet) == ["000000.tar", "000002.tar"]
    assert re.findall("<figcaption>(.*?)<", sheet) == [
        *("a [cat] and a [dog]", "a cat → a hat", "a cat", "a cat")
    ]
    assert sheet.count("<img") == 5 + 2 + 1 + 1
    assert len(list(pick_cards(output, count=1, seed=3))) == 1
    assert list(pick_cards(output, count=2)) == list(pick_cards(output, count=2))


def test_captions_are_no_html(tmp_path: Path) -> None:
    output = OutputFolder(directory=tmp_path / "set", per_shard=8)
    output.begin({})
    hostile = CaptionSample(caption="<script>alert(1)</script>", image=plain("red"))
    output.write(shard(0, [hostile], came=1))
    write_report(output, {}, planned=1)
    assert "<script" not in (output.directory / "sheet.html").read_text("utf-8")


def test_cards() -> None:
    card = make_card(COMPOSITIONAL, "0.tar")
    assert (card.group, card.prompt) == ("0.tar", "a [cat] and a [dog]")
    shown = [image.getpixel((9, 9)) for image in (*card.inputs, card.output)]
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

"""What a run made, for people: its counts, and a sheet of samples to look at."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from kosmosg.curation.output import OutputFolder, write_text
from kosmosg.curation.sources import printable
from kosmosg.curation.totals import Totals, make_table, to_json
from kosmosg.data.bad_samples import BadSample
from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    CompositionalSample,
    EditSample,
    Sample,
    decode_image,
)
from kosmosg.data.shards import TarShard, shard_name
from kosmosg.utils.contact_sheet import Card, write_contact_sheet

logger = logging.getLogger(__name__)

REPORT_FILE, TABLE_FILE, SHEET_FILE = "report.json", "report.md", "sheet.html"
SHEET_SAMPLES = 48


def write_report(
    output: OutputFolder, settings: Mapping[str, Any], planned: int
) -> tuple[str, Totals]:
    """Write counts and sheet into the folder.

    Args:
        output: The folder.
        settings: What decided the samples.
        planned: Shards that there are to be.

    Returns:
        The counts, as a table and as numbers.
    """
    totals = Totals.of(output.summaries())
    table = make_table(totals, planned)
    content = json.dumps(to_json(totals, settings, planned), indent=2, ensure_ascii=False)
    write_text(output.directory / REPORT_FILE, f"{content}\n")
    write_text(output.directory / TABLE_FILE, table)
    if totals.samples:
        write_contact_sheet(
            output.directory / SHEET_FILE,
            title=printable(output.directory.name),
            table=table,
            cards=pick_cards(output),
        )
    return table, totals


def pick_cards(output: OutputFolder, count: int = SHEET_SAMPLES, seed: int = 0) -> Iterator[Card]:
    """Pick some samples by chance from all, and show them as the readers of training give them.

    Args:
        output: A folder with samples in it.
        count: How many, if there are so many.
        seed: Of the choice.

    Yields:
        A card for each, in the order of the shards, whose names stand above them.
    """
    sizes = {summary["shard"]: summary["samples"] for summary in output.summaries()}
    borders = np.cumsum([*sizes.values()])
    picked = np.random.default_rng(seed).permutation(borders[-1])[:count]
    for number in sorted(picked.tolist()):
        place = int(np.searchsorted(borders, number, side="right"))
        name = shard_name([*sizes][place])
        shard = TarShard(path=output.directory / name, rules=CaptionRules(min_side=1))
        entry = shard.scan().entries[number - (int(borders[place - 1]) if place else 0)]
        try:
            yield make_card(shard.read(entry, np.random.default_rng(seed)), name)
        except BadSample as error:
            logger.warning("%s: sample %s is not on the sheet (%s)", name, number, error)


def make_card(sample: Sample, group: str) -> Card:
    """Show one sample: what the model is given, and what it is to generate.

    Of each entity both images are shown; its words are in brackets.
    """
    match sample:
        case CompositionalSample(caption=caption, entities=entities, target=target):
            inputs = [decode_image(each) for e in entities for each in (e.crop, e.masked_crop)]
            text = mark(caption, [entity.span for entity in entities])
            return Card(group=group, inputs=inputs, prompt=text, output=target)
        case EditSample(caption=caption, instruction=instruction, before=before, after=after):
            text = f"{caption} → {instruction}"
            return Card(group=group, inputs=[before], prompt=text, output=after)
        case CaptionSample(caption=caption, image=image) if image is not None:
            return Card(group=group, inputs=[], prompt=caption, output=image)
    raise AssertionError(f"{type(sample).__name__} is not made here")


def mark(caption: str, spans: Iterable[tuple[int, int]]) -> str:
    """Put brackets around stretches of a text, which go from left to right."""
    parts, position = [], 0
    for start, end in spans:
        parts += [caption[position:start], "[", caption[start:end], "]"]
        position = end
    return "".join([*parts, caption[position:]])

"""What a run made, for people: counts of every step, and a sheet of samples to look at."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kosmosg.curation.output import KEPT, Ledger
from kosmosg.curation.records import RULES
from kosmosg.curation.sources import printable
from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    CompositionalSample,
    EditSample,
    Sample,
    open_picture,
)
from kosmosg.data.shard_writer import shard_name
from kosmosg.data.shards import TarShard
from kosmosg.data.skipping import BadSample
from kosmosg.utils.contact_sheet import Card, write_contact_sheet

logger = logging.getLogger(__name__)

REPORT_FILE, TABLE_FILE, SHEET_FILE = "report.json", "report.md", "sheet.html"
SHEET_SAMPLES = 48
HEADER = "| step | came | kept | filtered | failed | s each |\n|---|---:|---:|---|---|---:|"


@dataclass(kw_only=True)
class StepTotal:
    """What one step made of everything.

    Attributes:
        came: Samples that came to it.
        kept: Samples that left it.
        seconds: Of all its workers together.
        set_aside: The others, by reason.
    """

    came: int = 0
    kept: int = 0
    seconds: float = 0.0
    set_aside: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add what the step made of one portion."""
        self.came += record["came"]
        self.kept += record["kept"]
        self.seconds += record["seconds"]
        self.set_aside.update(record["set_aside"])

    @property
    def filtered(self) -> dict[str, int]:
        """How many a rule sorted out, by reason."""
        return {reason: n for reason, n in sorted(self.set_aside.items()) if reason in RULES}

    @property
    def failed(self) -> dict[str, int]:
        """For how many something went wrong, by reason."""
        return {reason: n for reason, n in sorted(self.set_aside.items()) if reason not in RULES}


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a run has made so far.

    Attributes:
        shards: Finished portions, those of which nothing is left included.
        samples: What is in the shards.
        bytes: Their size.
        steps: By name, in their order.
        entities: How many are in the samples (``kept``), and how many were dropped, by reason.
    """

    shards: int
    samples: int
    bytes: int
    steps: dict[str, StepTotal]
    entities: dict[str, int]

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> "Totals":
        """Add up the records of a ledger."""
        shards = samples = size = 0
        steps: dict[str, StepTotal] = {}
        entities: Counter[str] = Counter()
        for record in records:
            shards, samples, size = shards + 1, samples + record["samples"], size + record["bytes"]
            entities.update(record["entities"])
            for step in record["steps"]:
                steps.setdefault(step["step"], StepTotal()).add(step)
        found = dict(sorted(entities.items()))
        return cls(shards=shards, samples=samples, bytes=size, steps=steps, entities=found)


def write_report(ledger: Ledger, settings: Mapping[str, Any], planned: int) -> str:
    """Write counts and sheet into the folder.

    Args:
        ledger: The folder.
        settings: What decided the samples.
        planned: Shards that there are to be.

    Returns:
        The counts as a table.
    """
    totals = Totals.of(ledger.records())
    table = make_table(totals, planned)
    content = json.dumps(to_json(totals, settings, planned), indent=2, ensure_ascii=False)
    (ledger.directory / REPORT_FILE).write_text(content + "\n", encoding="utf-8")
    (ledger.directory / TABLE_FILE).write_text(table, encoding="utf-8")
    if totals.samples:
        write_contact_sheet(
            ledger.directory / SHEET_FILE,
            title=printable(ledger.directory.name),
            table=table,
            cards=draw_cards(ledger),
        )
    return table


def to_json(totals: Totals, settings: Mapping[str, Any], planned: int) -> dict[str, Any]:
    """Collect all numbers."""
    return {
        "settings": dict(settings),
        "shards": {"finished": totals.shards, "planned": planned},
        "samples": totals.samples,
        "bytes": totals.bytes,
        "steps": {
            name: {
                "came": step.came,
                "kept": step.kept,
                "filtered": step.filtered,
                "failed": step.failed,
                "seconds": round(step.seconds, 3),
            }
            for name, step in totals.steps.items()
        },
        "entities": totals.entities,
    }


def make_table(totals: Totals, planned: int) -> str:
    """Write the counts in Markdown; the last column is the time of one worker for a sample."""
    lines = [HEADER]
    for name, step in totals.steps.items():
        each = f"{step.seconds / step.came:.3f}" if step.came else "–"
        row = (name, step.came, step.kept, _listed(step.filtered), _listed(step.failed), each)
        lines.append(f"| {' | '.join(map(str, row))} |")
    lines += [
        "",
        f"{totals.samples} samples ({totals.bytes / 1e9:.3f} GB) in {totals.shards} of {planned} "
        "shards.",
    ]
    if totals.entities.get(KEPT):
        dropped = {reason: n for reason, n in totals.entities.items() if reason != KEPT}
        lines.append(f"{totals.entities[KEPT]} entities; dropped: {_listed(dropped)}.")
    return "\n".join(lines) + "\n"


def draw_cards(ledger: Ledger, count: int = SHEET_SAMPLES, seed: int = 0) -> Iterator[Card]:
    """Draw some samples by chance from all, and show them as the readers of training give them.

    Args:
        ledger: A folder with samples in it.
        count: How many, if there are so many.
        seed: Of the draw.

    Yields:
        A card for each, in the order of the shards, whose names stand above them.
    """
    sizes = {record["shard"]: record["samples"] for record in ledger.records()}
    borders = np.cumsum([*sizes.values()])
    drawn = np.random.default_rng(seed).permutation(borders[-1])[:count]
    for number in sorted(drawn.tolist()):
        place = int(np.searchsorted(borders, number, side="right"))
        name = shard_name([*sizes][place])
        shard = TarShard(path=ledger.directory / name, rules=CaptionRules(min_side=1))
        entry = shard.scan().entries[number - (int(borders[place - 1]) if place else 0)]
        try:
            yield make_card(shard.read(entry, np.random.default_rng(seed)), name)
        except BadSample as error:
            logger.warning("%s: sample %s is not on the sheet (%s)", name, number, error)


def make_card(sample: Sample, group: str) -> Card:
    """Show one sample: what the model is given, and what it is to draw.

    Of each entity both pictures are shown; its words are in brackets.
    """
    match sample:
        case CompositionalSample(caption=caption, entities=entities, target=target):
            inputs = [open_picture(each) for e in entities for each in (e.crop, e.masked_crop)]
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


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "–"

"""What came out, as files: numbers, a table beside the paper's, a sheet to look at.

Nothing in them depends on the machine, the number of processes or the time it took, so two runs
can be compared with ``diff``.
"""

import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from kosmosg.evaluation.image_folder import write_whole, writing
from kosmosg.evaluation.intervals import Estimate
from kosmosg.utils.contact_sheet import Card, write_contact_sheet

RESULTS_FILE, TABLE_FILE, SHEET_FILE = "results.json", "table.md", "sheet.html"
LIBRARIES = ("torch", "diffusers", "transformers", "pillow")
# How the scores of an evaluation are written, and what the parts of a score are called.
FORMATS = {"dreambench": "{:.3f}", "coco": "{:.2f}"}
PARTS = {"kind": "kind of prompt", "subject": "subject"}


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is to be said of a run.

    Attributes:
        evaluation: ``dreambench`` or ``coco``.
        model: What the table calls the model.
        settings: Everything that decides the numbers.
        conventions: What was done, in sentences, above all where protocols differ.
        scores: What the evaluator found, by name.
        pictures: File, prompt, seed and scores of every picture.
    """

    evaluation: str
    model: str
    settings: Mapping[str, Any]
    conventions: Sequence[str]
    scores: Mapping[str, Estimate]
    pictures: Sequence[Mapping[str, Any]]


def write_results(report: Report, cards: Iterable[Card], folder: Path) -> str:
    """Write results, table and contact sheet.

    Args:
        report: What to write.
        cards: What the sheet shows; one at a time is held in memory.
        folder: Where to.

    Returns:
        The table.
    """
    table = make_table(report)
    content = json.dumps(to_json(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / RESULTS_FILE, content + "\n")
    write_whole(folder / TABLE_FILE, table)
    title = f"{report.evaluation}: {report.model}"
    with writing(folder / SHEET_FILE):
        write_contact_sheet(folder / SHEET_FILE, title=title, table=table, cards=cards)
    return table


def to_json(report: Report) -> dict[str, Any]:
    """Collect all numbers; the parts of a score stand within it, by kind and by subject."""
    scores: dict[str, Any] = {}
    for name, estimate in report.scores.items():
        entry, (first, *path) = scores, name.split("/")
        for key in path:
            entry = entry.setdefault(first, {})
            first = key
        entry[first] = _finite(asdict(estimate))
    return {
        "evaluation": report.evaluation,
        "model": report.model,
        "settings": dict(report.settings),
        "conventions": list(report.conventions),
        "versions": {name: version(name) for name in LIBRARIES},
        "scores": scores,
        "published": published(report.evaluation),
        "pictures": [dict(picture) for picture in report.pictures],
    }


def published(evaluation: str) -> dict[str, Any]:
    """Read what the paper prints: ``source``, ``scores`` and ``rows``."""
    text = files("kosmosg.evaluation").joinpath("published.toml").read_text("utf-8")
    return tomllib.loads(text)[evaluation]


def make_table(report: Report) -> str:
    """Write the tables in Markdown, with what their numbers rest on underneath."""
    paper = published(report.evaluation)
    whole = {name: found for name, found in report.scores.items() if "/" not in name}
    names = list(dict.fromkeys([*paper["scores"], *whole]))
    write = FORMATS[report.evaluation].format
    lines = [_row("method", *names), _row("---", *["---:"] * len(names))]
    for row in paper["rows"]:
        values = [write(row[name]) if name in row else "–" for name in names]
        lines.append(_row(f"{row['method']} ({paper['source']})", *values))
    values = [_measured(whole[name], write) if name in whole else "–" for name in names]
    lines.append(_row(f"**{_plain(report.model)}**, measured", *values))
    for part, title in PARTS.items():
        lines += _part_table(report, part, title, list(whole), write)
    said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in report.settings.items())
    notes = [
        "In brackets: 95 % intervals, by the bootstrap.",
        *report.conventions,
        f"Settings: {_plain(said)}.",
    ]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def _part_table(
    report: Report, part: str, title: str, names: Sequence[str], write: Any
) -> Iterator[str]:
    """Write the scores of each kind or subject, if there are any."""
    rows = {name.split("/")[2]: None for name in report.scores if name.split("/")[1:2] == [part]}
    if not rows:
        return
    yield from ("", _row(title, *names), _row("---", *["---:"] * len(names)))
    for row in rows:
        found = [report.scores[f"{name}/{part}/{row}"] for name in names]
        yield _row(row, *(_measured(each, write) for each in found))


def _measured(estimate: Estimate, write: Any) -> str:
    value = write(estimate.value)
    if math.isnan(estimate.low):
        return value
    return f"{value} ({write(estimate.low)} – {write(estimate.high)})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Keep a name from ending a cell or a line."""
    return " ".join(text.split()).replace("|", "\\|")


def _finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Put null in the place of what JSON has no number for."""
    return {
        key: None if isinstance(number, float) and not math.isfinite(number) else number
        for key, number in numbers.items()
    }

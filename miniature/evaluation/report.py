"""Results as files: numbers for programs, a table and sheets for people."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from kosmosg.evaluation.metrics import Estimate
from kosmosg.evaluation.report import finite, library_versions
from kosmosg.utils.files import atomic_file
from miniature.evaluation.image_grids import Cell, lay_out
from miniature.evaluation.tables import Row, RowResult

RESULTS_FILE, TABLE_FILE = "results.json", "table.md"
SHEET_CASES, SHEET_COLUMNS = 40, 5
NOT_MEASURED = {
    **{"value": None, "low": None, "high": None, "samples": 0},
    **{"reached": None, "true_images": None},
}
HEADER = (
    "| task | mirrors | weights | measured | share | 95 % interval | asked | true images |\n"
    "|---|---|---|---|---|---|---|---|"
)


def write_report(
    results: Sequence[RowResult],
    left_out: Mapping[str, str],
    settings: Mapping[str, Any],
    directory: Path,
) -> str:
    """Write results, table and sheets.

    Args:
        results: The rows that were measured.
        left_out: Why others were not, by their keys.
        settings: Everything that decides the numbers.
        directory: Where to; made if missing.

    Returns:
        The table.
    """
    table = make_table(results, left_out, settings)
    content = json.dumps(to_json(results, left_out, settings), indent=2, ensure_ascii=False)
    for name, text in ((RESULTS_FILE, content + "\n"), (TABLE_FILE, table)):
        with atomic_file(directory / name) as file:
            file.write_text(text, encoding="utf-8")
    for result in results:
        with atomic_file(directory / f"{result.row.key}.png") as file:
            make_sheet(result).save(file, format="PNG")
    return table


def to_json(
    results: Sequence[RowResult], left_out: Mapping[str, str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect all numbers."""
    return {
        "settings": dict(settings),
        "versions": library_versions(),
        "rows": [_row_to_json(result) for result in results],
        "left_out": dict(left_out),
    }


def make_table(
    results: Sequence[RowResult], left_out: Mapping[str, str], settings: Mapping[str, Any]
) -> str:
    """Write the table in Markdown, with what its numbers rest on underneath."""
    lines = [line for result in results for line in _lines(result)]
    notes = [f"- Left out: {key} ({reason})." for key, reason in left_out.items()]
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
    notes.append(f"- Settings: {said}.")
    notes.append(
        "- Entities and arrangements are held out of stages 2 and 3. True images are the world's "
        "own of what was asked for: more than their share the probe cannot find. No word speaks "
        "of an entity that is given as an image, except in edits, which may name its noun as "
        "their instructions do in training."
    )
    return "\n".join([HEADER, *lines, "", *notes]) + "\n"


def make_sheet(result: RowResult) -> Image.Image:
    """Show the first examples of a row, each in a frame that tells right from wrong."""
    examples = [*zip(result.cases, result.images, result.verdicts, strict=True)][:SHEET_CASES]
    cells = [
        Cell(inputs=case.images, prompt=case.prompt, output=image, right=right)
        for case, image, right in examples
    ]
    return lay_out(cells, SHEET_COLUMNS)


def is_reached(row: Row, name: str, estimate: Estimate) -> bool | None:
    """Tell whether a number is as high as asked; nothing if nothing is asked."""
    return estimate.value >= row.asked[name] if name in row.asked else None


def _lines(result: RowResult) -> Iterator[str]:
    row = result.row
    first = (row.title, row.mirrors, row.model)
    for name in row.shown:
        found = result.estimates.get(name)
        asked = f"≥ {row.asked[name]:.0%}" if name in row.asked else ""
        if found is None:
            if asked:
                yield f"| {' | '.join((*first, name, 'not measured', '–', asked, ''))} |"
                first = ("", "", "")
            continue
        if asked:
            asked += ", reached" if is_reached(row, name, found) else ", **not reached**"
        true = result.ceiling.get(name)
        entries = (*first, name, _percent(found.value), _interval(found), asked)
        yield f"| {' | '.join(entries)} | {_percent(true.value) if true else ''} |"
        first = ("", "", "")


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return "–"
    return f"{100 * estimate.low:.1f} – {100 * estimate.high:.1f}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _row_to_json(result: RowResult) -> dict[str, Any]:
    row = result.row
    measured = {
        name: {
            **finite(asdict(estimate)),
            "asked": row.asked.get(name),
            "reached": is_reached(row, name, estimate),
            "true_images": ceiling.value if (ceiling := result.ceiling.get(name)) else None,
        }
        for name, estimate in result.estimates.items()
    }
    for name in row.asked.keys() - result.estimates.keys():
        measured[name] = {**NOT_MEASURED, "asked": row.asked[name]}
    return {
        "key": row.key,
        "title": row.title,
        "mirrors": row.mirrors,
        "weights": row.model,
        "measured": measured,
        "prompts": [
            {"prompt": case.prompt, "right": right}
            for case, right in zip(result.cases, result.verdicts, strict=True)
        ],
    }

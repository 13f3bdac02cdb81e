"""Measurements → one Markdown table, and JSON beside it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import Measurement
from benchmarks.rows import ROW, Target

Measurements = Mapping[str, Measurement]
HEADER = "| what | baseline | measured | baseline | ratio (from – to) | target | PSNR |"
RULE = "|---|---|---:|---:|---:|---:|---:|"


def write_report(file: Path, settings: dict[str, Any], measurements: Measurements) -> None:
    """Write the table to a file and the figures beside it, with the suffix ``.json``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(make_table(settings, measurements), encoding="utf-8")
    text = json.dumps(make_record(settings, measurements), indent=2, allow_nan=False)
    file.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def make_record(settings: dict[str, Any], measurements: Measurements) -> dict[str, Any]:
    """Everything that was measured, round by round."""
    rows = []
    for name, measurement in measurements.items():
        row = asdict(ROW[name])
        del row["suite"]
        rows.append(row | _found(measurement, wanted_target(settings, name)))
    return {**settings, "rows": rows}


def _found(measurement: Measurement, target: Target | None) -> dict[str, Any]:
    if measurement.reason:
        return {"not_measured": measurement.reason, "target": None}
    ratios = measurement.ratios
    return {
        "values": list(measurement.values),
        "baselines": list(measurement.baselines),
        "ratio": measurement.ratio,
        "spread": [min(ratios), max(ratios)],
        "target": asdict(target) if target else None,
        "met": is_met(target, measurement) if target else None,
        "psnr": "identical" if measurement.psnr == math.inf else measurement.psnr,
        "note": measurement.note,
    }


def make_table(settings: dict[str, Any], measurements: Measurements) -> str:
    """One table, with what it was measured on above and what needs a word below."""
    notes: list[str] = []
    lines = [_table_row(settings, name, each, notes) for name, each in measurements.items()]
    footnotes = [f"{number}. {note}" for number, note in enumerate(notes, start=1)]
    return "\n".join([*_heading(settings), "", HEADER, RULE, *lines, "", *footnotes, ""])


def _heading(settings: dict[str, Any]) -> list[str]:
    machine, versions = settings["machine"], settings["versions"]
    device = machine.get("gpu", machine["cpu"])
    if machine["device"] == "cpu":
        device += f", {machine['threads']} threads on {machine['cores']} cores"
    else:
        device += f", {machine['gpu_memory_gb']} GB, CUDA {machine['cuda']}; {machine['cpu']}"
    load = settings["load_average"]
    return [
        f"{device}, {machine['memory_gb']} GB of memory, {machine['system']}; load average "
        f"{load['before']} before and {load['after']} after.",
        ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        f"Size {settings['size']}, {settings['rounds']} rounds, {settings['weights']} weights. "
        "Times and ratios are medians; the range is that of the rounds.",
    ]


def _table_row(
    settings: dict[str, Any], name: str, measurement: Measurement, notes: list[str]
) -> str:
    row = ROW[name]
    if measurement.reason:
        return f"| {row.title} | {row.baseline} | not measured: {measurement.reason} | | | | |"
    ratios = measurement.ratios
    cells = [
        row.title + (f" [{_number(notes, measurement.note)}]" if measurement.note else ""),
        row.baseline,
        format_value(median(measurement.values), row.unit),
        format_value(median(measurement.baselines), row.unit),
        f"**{measurement.ratio:.3g}** ({min(ratios):.3g} – {max(ratios):.3g})",
        format_target(wanted_target(settings, name), measurement, row.unit),
        format_psnr(measurement.psnr, row.fidelity),
    ]
    return f"| {' | '.join(cells)} |"


def _number(notes: list[str], note: str) -> int:
    """Number of a footnote; the same words share one."""
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1


def wanted_target(settings: dict[str, Any], name: str) -> Target | None:
    """A row's target, if it is one for this size and device."""
    target = ROW[name].target
    if target is None or settings["size"] != "full":
        return None
    return target if target.device in ("", settings["machine"]["device"]) else None


def is_met(target: Target, measurement: Measurement) -> bool:
    """Whether the medians reach a target."""
    return target.met(measurement.ratio, median(measurement.values))


def format_value(value: float, unit: str) -> str:
    """Three digits, seconds in a unit that suits them."""
    if unit == "s" and value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def format_target(target: Target | None, measurement: Measurement, unit: str) -> str:
    """The bound, and whether it is met."""
    if target is None:
        return ""
    bound = f"{target.limit:g} {unit}" if target.measured else f"{target.limit:g}"
    met = "met" if is_met(target, measurement) else "**missed**"
    return f"{'≥' if target.at_least else '≤'} {bound}, {met}"


def format_psnr(value: float | None, least: float | None) -> str:
    """The fidelity, and the least that the row allows if it is below."""
    if value is None:
        return ""
    if value == math.inf:
        return "identical"
    below = least is not None and value < least
    return f"{value:.0f} dB" + (f", **below {least:g}**" if below else "")


def merge(names: Sequence[str], found: Measurements) -> dict[str, Measurement]:
    """Bring measurements into the order of the table."""
    return {name: found[name] for name in names if name in found}

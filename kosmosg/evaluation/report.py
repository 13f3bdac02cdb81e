"""What came out, as files: numbers, a table beside the paper's with what was done, a sheet.

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

from kosmosg.evaluation.coco import REAL_SIDE
from kosmosg.evaluation.dreambench import Wording
from kosmosg.evaluation.image_folder import writing
from kosmosg.evaluation.inception import SIDE
from kosmosg.evaluation.metrics import Estimate
from kosmosg.evaluation.options import COCO_BATCH, DREAMBENCH_PROMPTS_PER_BATCH
from kosmosg.evaluation.protocol import EvaluationProtocol
from kosmosg.utils.contact_sheet import Card, write_contact_sheet
from kosmosg.utils.files import atomic_file

RESULTS_FILE, TABLE_FILE, SHEET_FILE = "results.json", "table.md", "sheet.html"
LIBRARIES = ("torch", "diffusers", "transformers", "pillow")
# How the scores of an evaluation are written, and what the parts of a score are called.
FORMATS = {"dreambench": "{:.3f}", "coco": "{:.2f}"}
PARTS = {"kind": "kind of prompt", "subject": "subject"}


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """All that is to be said of a run.

    Attributes:
        evaluation: ``dreambench`` or ``coco``.
        model: What the table calls the model.
        settings: Everything that decides the numbers.
        conventions: What was done, in sentences, above all where protocols differ.
        scores: What the evaluator found, by name.
        images: File, prompt, seed and scores of every image.
    """

    evaluation: str
    model: str
    settings: Mapping[str, Any]
    conventions: Sequence[str]
    scores: Mapping[str, Estimate]
    images: Sequence[Mapping[str, Any]]


def write_results(report: EvaluationReport, cards: Iterable[Card], folder: Path) -> str:
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
    for name, text in ((RESULTS_FILE, content + "\n"), (TABLE_FILE, table)):
        with writing(folder / name), atomic_file(folder / name) as file:
            file.write_text(text, encoding="utf-8")
    title = f"{report.evaluation}: {report.model}"
    with writing(folder / SHEET_FILE):
        write_contact_sheet(folder / SHEET_FILE, title=title, table=table, cards=cards)
    return table


def to_json(report: EvaluationReport) -> dict[str, Any]:
    """Collect all numbers; the parts of a score stand within it, by kind and by subject."""
    scores: dict[str, Any] = {}
    for name, estimate in report.scores.items():
        entry, (first, *path) = scores, name.split("/")
        for key in path:
            entry = entry.setdefault(first, {})
            first = key
        entry[first] = finite(asdict(estimate))
    return {
        "evaluation": report.evaluation,
        "model": report.model,
        "settings": dict(report.settings),
        "conventions": list(report.conventions),
        "versions": library_versions(),
        "scores": scores,
        "published": published(report.evaluation),
        "images": [dict(image) for image in report.images],
    }


def library_versions() -> dict[str, str]:
    """Say which versions of the libraries made the numbers."""
    return {name: version(name) for name in LIBRARIES}


def finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Put null in the place of what JSON has no number for."""
    return {
        key: None if isinstance(number, float) and not math.isfinite(number) else number
        for key, number in numbers.items()
    }


def published(evaluation: str) -> dict[str, Any]:
    """Read what the paper prints: ``source``, ``scores`` and ``rows``."""
    text = files("kosmosg.evaluation").joinpath("published.toml").read_text("utf-8")
    return tomllib.loads(text)[evaluation]


def make_table(report: EvaluationReport) -> str:
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
    report: EvaluationReport, part: str, title: str, names: Sequence[str], write: Any
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


def dreambench_conventions(
    protocol: EvaluationProtocol, wording: Wording, seed: int, per_prompt: int
) -> Iterator[str]:
    """Say how DreamBench was generated and scored."""
    yield _noise(protocol, per_prompt * DREAMBENCH_PROMPTS_PER_BATCH, seed)
    if not wording.images:
        yield "Prompts are DreamBooth's original ones in words; the model saw no photograph."
    elif wording.noun:
        yield "Prompts are the paper's (appendix A), with the subject's noun before its image."
    else:
        yield (
            "Prompts are the paper's (appendix A), the subject's image in the place of its noun."
        )
    yield (
        "DINO and CLIP-I compare with the one photograph that is kept of a subject, which is also "
        "the input; CLIP-T with DreamBooth's original prompt. They are means of cosines over all "
        "images, of which the mean alone is kept from falling below zero."
    )
    yield "For intervals subjects are resampled, and for those of one subject its prompts."


def coco_conventions(protocol: EvaluationProtocol, seed: int, *, inception: bool) -> Iterator[str]:
    """Say how COCO's captions became images, and how these were measured."""
    yield _noise(protocol, COCO_BATCH, seed)
    yield f"Captions are chosen by Python's generator with seed {seed} from all of the file."
    if protocol.old_resizing:
        photographs = f"scaled to {REAL_SIDE} pixels (bilinear), their central square kept"
    else:
        photographs = "cut to their central square"
    yield f"Photographs are all of the set, {photographs}; images are taken as they were generated."
    if inception and protocol.old_resizing:
        yield f"Both come to {SIDE} pixels as in TensorFlow 1: bilinear, without smoothing."
    elif inception:
        yield f"Both come to {SIDE} pixels by Pillow's bicubic filter, not rounded."
    yield (
        "The interval shows how the distance scatters when the images are resampled; the "
        "photographs are not."
    )


def stand_in(diffusers: bool) -> Iterator[str]:
    """Say if it was not KOSMOS-G that generated."""
    if diffusers:
        yield (
            "A pipeline of diffusers stood in KOSMOS-G's place; one without a U-Net keeps its own "
            "sampler and noise."
        )


def departures(found: Mapping[str, Any], published: Mapping[str, Any]) -> Iterator[str]:
    """Say which settings are not the published ones."""
    others = [
        f"{name.replace('_', ' ')} {found[name]} instead of {value}"
        for name, value in published.items()
        if found[name] != value
    ]
    if others:
        yield f"**Not as published:** {', '.join(others)}."


def _noise(protocol: EvaluationProtocol, noises: int, seed: int) -> str:
    if protocol.shared_noise:
        return (
            f"Protocol {protocol.name}: every {noises} images begin with the same {noises} "
            f"noises, of seeds {seed} to {seed + noises - 1}, as in the authors' script. Theirs "
            "came from a generator on the GPU, these come from one on the CPU."
        )
    return f"Protocol {protocol.name}: image n, from 0, begins with the noise of seed {seed} + n."

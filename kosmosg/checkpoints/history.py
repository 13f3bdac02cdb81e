"""What weights have been through, stage by stage: ``training.json`` in a weights folder.

It is for the reader of a model card; nothing else depends on it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmosg.errors import WeightsError
from kosmosg.utils.files import atomic_file

HISTORY = "training.json"
_FIELDS = {"stage": str, "data": list, "updates": int, "batch_size": int}


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read what a folder notes, the first stage first; nothing if it notes nothing.

    Raises:
        WeightsError: If it cannot be understood.
    """
    file = folder / HISTORY
    if not file.is_file():
        return []
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        found = error
    good = isinstance(found, list) and all(
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), kind) for name, kind in _FIELDS.items())
        and all(isinstance(each, str) for each in entry["data"])
        for entry in found
    )
    if not good:
        raise WeightsError(
            f"{file} does not say what these weights were trained on ({found!r:.80}). Remove it, "
            "or put back what it was."
        )
    return found


def add_history(folder: Path, earlier: Path | None, entry: Mapping[str, Any]) -> None:
    """Note what a stage has done, behind what its starting weights had been through.

    Args:
        folder: The result; what it notes already is replaced.
        earlier: The starting weights.
        entry: stage, data (their names), updates, batch_size, and what else is worth telling, such
            as loss.
    """
    before: Sequence[Mapping[str, Any]] = read_history(earlier) if earlier else ()
    text = json.dumps([*before, dict(entry)], indent=2, ensure_ascii=False) + "\n"
    if (folder / HISTORY).is_file() and (folder / HISTORY).read_text(encoding="utf-8") == text:
        return
    with atomic_file(folder / HISTORY) as unfinished:
        unfinished.write_text(text, encoding="utf-8")

"""The evaluations as commands over made-up sets, and what they leave."""

from pathlib import Path
from typing import Any

from kosmosg.utils.files import LOCK
from tests.evaluation.fabricated import Fabricated

RESULTS = ("results.json", "table.md", "sheet.html")
BATCH = 8


def words_of(
    evaluation: str,
    fabricated: Fabricated,
    output: Path,
    *more: Any,
    model: Path | None = None,
    only: tuple[str, ...] = ("can", "cat"),
) -> list[str]:
    """Write out ``kosmosg evaluate`` with all that a short run needs."""
    settings = ["--steps", 1, "--batch", BATCH, "--device", "cpu", "--output", output]
    if model:
        settings += ["--weights", model]
    data: list[Any] = {
        "dreambench": [
            *("--subjects", fabricated.subjects),
            *(word for name in only for word in ("--only", name)),
            *("--dino", fabricated.dino, "--clip", fabricated.clip, "--per-prompt", 1),
        ],
        "coco": [
            *("--captions", fabricated.captions, "--photographs", fabricated.photographs),
            *("--features", fabricated.dino, "--count", 20),
        ],
    }[evaluation]
    return [str(word) for word in ("evaluate", evaluation, *data, *settings, *more)]


def contents(folder: Path) -> dict[str, bytes]:
    """Read everything that a run leaves, but for the number of its process."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

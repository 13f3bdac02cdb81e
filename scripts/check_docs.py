"""Hold the documents against the code: files, make targets, inputs, kept quirks.

    python -m scripts.check_docs

Commands and Python blocks are run or parsed by ``tests/test_docs.py``.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *(f"{folder}/README.md" for folder in ("benchmarks", "samples", "weights")),
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))),
)
# Folders whose content users make.
MADE_BY_USERS = (
    *(
        "weights/kosmos-g",
        "weights/stable-diffusion-v1-5",
        "weights/tokenizer",
        "weights/checkpoints",
    ),
    *("weights/controlnet", "weights/annotators", "weights/inception"),
    *("weights/.kosmosg.lock", "outputs"),
)
NOTE = "NOTE(reference)"
README_WORDS = 2500


def main() -> int:
    """Print what does not hold.

    Returns:
        0 if everything holds.
    """
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    problems = [f"{name}: {each}" for name in texts for each in check_names(name, texts[name])]
    problems += check_inputs(texts["docs/inputs.md"]) + check_quirks(texts["docs/deviations.md"])
    if len(texts["README.md"].split()) > README_WORDS:
        problems.append(f"README.md has more than {README_WORDS} words")
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


def check_names(name: str, text: str) -> Iterator[str]:
    """Look for links, files in code, and make targets that do not exist."""
    here = (ROOT / name).parent
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        if not (here / link).exists():
            yield f"the link {link} leads nowhere"
    first = "|".join(path.name for path in ROOT.iterdir() if path.is_dir())
    for file in re.findall(rf"`((?:{first})/[\w./-]+)`", text):
        made = any(
            file.rstrip("/") == each or file.startswith(f"{each}/") for each in MADE_BY_USERS
        )
        if not made and not (ROOT / file).exists():
            yield f"there is no {file}"
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:`|^|&& )make ([a-z][\w-]*)", text, re.MULTILINE):
        if target not in targets:
            yield f"there is no make {target}"


def check_inputs(text: str) -> list[str]:
    """Compare the table of inputs with the schema that Cog makes of ``predict()``."""
    schemas = json.loads((ROOT / "tests" / "contract.json").read_text())["components"]["schemas"]
    inputs = schemas["Input"]["properties"]
    rows = {cells[0].strip("` "): cells for cells in table_rows(text)}
    if list(rows) != sorted(inputs, key=lambda name: inputs[name]["x-order"]):
        return ["docs/inputs.md: the inputs or their order differ from those of predict()"]
    problems = []
    for name, entry in inputs.items():
        cells = " ".join(rows[name])
        choices = schemas[name]["enum"] if name in schemas else []
        wanted = [entry.get("minimum"), entry.get("maximum"), *choices]
        default = entry.get("default")
        wanted.append(json.dumps(default) if isinstance(default, bool | str) else default)
        missing = [str(each) for each in wanted if each is not None and str(each) not in cells]
        problems += [f"docs/inputs.md: the row of {name} lacks {each}" for each in missing]
    return problems


def check_quirks(text: str) -> list[str]:
    """Count the rows of the table of kept quirks and the notes in the code, file by file."""
    section = text.partition("## Kept quirks")[2].partition("\n## ")[0]
    rows = Counter(cells[0].strip("` ") for cells in table_rows(section))
    sources = ((path, path.read_text()) for path in (ROOT / "kosmosg").rglob("*.py"))
    notes = Counter({path.relative_to(ROOT).as_posix(): t.count(NOTE) for path, t in sources})
    return [
        f"{name} has {notes[name]} {NOTE}, and docs/deviations.md {rows[name]} rows"
        for name in sorted(set(rows) | set(+notes))
        if rows[name] != notes[name]
    ]


def table_rows(text: str) -> Iterator[list[str]]:
    """The cells of the rows that begin with a name in code."""
    for line in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE):
        yield line.split("|")


if __name__ == "__main__":
    sys.exit(main())

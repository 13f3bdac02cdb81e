"""Hold the documents against the code: help texts, commands, names, inputs, kept quirks.

    python -m scripts.check_docs [--update]

``--update`` writes the help texts anew. What is a matter of wording is not checked.
"""

import argparse
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from pathlib import Path

from kosmosg.cli.main import build_parser
from scripts.cog_schema import InputField, Signature, read_signature

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "weights/README.md", "samples/README.md")
DOCUMENTS += ("docs/training.md", "docs/evaluation.md", "docs/curation.md", "benchmarks/README.md")
FOLDERS = ("kosmosg", "scripts", "samples", "tests", "weights", "runs", "benchmarks", ".ci")
# These appear when somebody builds, downloads, converts or draws.
MADE_BY_USERS = (".venv", ".cog", "outputs", "weights/kosmos-g", "weights/checkpoints")
MADE_BY_USERS += ("weights/tokenizer", "weights/stable-diffusion-v1-5")
MADE_BY_USERS += ("weights/controlnet", "weights/annotators")
MADE_BY_USERS += ("weights/manifest.lock", "weights/.download.lock", "weights/inception")

NOTE = "NOTE(reference)"
TYPES = {
    "Path": "file",
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
}

_FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HELP = re.compile(
    r"^\$ (python -m kosmosg(?: \w+)* --help)\n.*?(?=^```$)", re.MULTILINE | re.DOTALL
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is wrong.

    Returns:
        1 if anything is, else 0.
    """
    parser = argparse.ArgumentParser(description="Hold the documents against the code.")
    parser.add_argument("--update", action="store_true", help="write the help texts anew")
    if parser.parse_args(arguments).update:
        README.write_text(update_help(README.read_text(encoding="utf-8")), encoding="utf-8")
    problems = [
        f"{name}: {problem}"
        for name in DOCUMENTS
        for problem in check_document(ROOT / name, (ROOT / name).read_text(encoding="utf-8"))
    ]
    readme = README.read_text(encoding="utf-8")
    signature = read_signature((ROOT / "predict.py").read_text(encoding="utf-8"))
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "kosmosg").rglob("*.py"))
    }
    problems += [
        f"README.md: {problem}"
        for problem in (
            *check_help(readme),
            *check_inputs(readme, signature),
            *check_quirks(readme, sources),
        )
    ]
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


# ------------------------------------------------------------------ help texts


def update_help(text: str) -> str:
    """Replace every help text by what the command prints now."""
    return _HELP.sub(lambda match: help_block(match[1]), text)


def check_help(text: str) -> Iterator[str]:
    """Compare the help texts with what the commands print."""
    for match in _HELP.finditer(text):
        if match[0] != help_block(match[1]):
            yield f"`{match[1]}` prints another text; run python -m scripts.check_docs --update"


def help_block(command: str) -> str:
    """The command and its output, 80 columns wide."""
    words = [sys.executable, *shlex.split(command)[1:]]
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    found = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    return f"$ {command}\n{found.stdout}"


# ------------------------------------------------------------------ commands and names


def check_document(path: Path, text: str) -> Iterator[str]:
    """Check the make targets, files and kosmosg commands that a document speaks of."""
    text = _HELP.sub("", text)  # not commands, but what one of them prints
    fences = [match[1].replace("\\\n", " ") for match in _FENCE.finditer(text)]
    spans = re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for code in (*fences, *spans):
        for target in re.findall(r"(?:^|\$ |&& )make ([a-z][\w-]*)", code, re.MULTILINE):
            if target not in targets:
                yield f"there is no `make {target}`"
    requests = re.findall(r"samples/[\w.-]+\.json", text)
    for name in dict.fromkeys([*requests, *filter(looks_like_path, spans)]):
        made = any(
            name.rstrip("/") == each or name.startswith(f"{each}/") for each in MADE_BY_USERS
        )
        if not made and not (ROOT / name).exists() and not (path.parent / name).exists():
            yield f"there is no `{name}`"
    for code in fences:
        yield from check_commands(code, complete=True)
    for code in spans:
        yield from check_commands(code, complete=False)


def find_command(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[argparse.ArgumentParser, str]:
    """Follow the names of commands to a parser, up to a word that should be one and is not."""
    for word in words:
        actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not actions:
            break
        if not word.startswith("-"):
            if word not in actions[0].choices:
                return parser, word
            parser = actions[0].choices[word]
    return parser, ""


def looks_like_path(span: str) -> bool:
    """Whether code in a sentence names a file or folder of the project."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span):
        return False
    first, slash, _ = span.partition("/")
    return first in FOLDERS if slash else bool(re.fullmatch(r"\w.*\.(py|yaml|toml|md)", span))


def check_commands(code: str, *, complete: bool) -> Iterator[str]:
    """Parse what follows ``python -m kosmosg``; only complete commands need all arguments."""
    parser = build_parser()
    for match in re.finditer(r"python -m kosmosg\b([^\n#|;]*)", code):
        words = shlex.split(match[1])
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        command, stranger = find_command(parser, words)
        if stranger:
            yield f"`{command.prog}` has no command {stranger}"
        elif unknown := sorted(options - set(command._option_string_actions)):
            yield f"`{command.prog}` has no option {', '.join(unknown)}"
        elif complete and "--help" not in words:
            message = io.StringIO()
            try:
                with redirect_stderr(message):
                    parser.parse_args(words)
            except SystemExit:
                yield f"`python -m kosmosg{match[1]}`: {message.getvalue().splitlines()[-1]}"


# ------------------------------------------------------------------ tables


def check_inputs(text: str, signature: Signature) -> Iterator[str]:
    """Compare the table of inputs with the signature of ``predict()``."""
    found = {cells[0]: cells[:4] for cells in table_rows(section(text, "Inputs"))}
    wanted = {cells[0]: cells for cells in map(input_cells, signature.inputs)}
    for name in found.keys() - wanted.keys():
        yield f"predict() has no input {name}"
    for name, cells in wanted.items():
        if found.get(name) != cells:
            yield f"the inputs' table needs: | {' | '.join(cells)} |"
    if list(found) != list(wanted) and found.keys() == wanted.keys():
        yield "the inputs' table has another order than predict()"


def input_cells(field: InputField) -> list[str]:
    """Name, type, default and bounds of an input, as the table shows them."""
    kind = TYPES[field.type.name]
    number = isinstance(field.default, float) and field.default.is_integer()
    default = json.dumps(int(field.default) if number else field.default)
    if field.choices:
        bounds = ", ".join(f"`{choice}`" for choice in field.choices)
    else:
        given = [
            f"{word} {value}"
            for word, value in (("from", field.ge), ("to", field.le))
            if value is not None
        ]
        bounds = " ".join(given)
    return [
        f"`{field.name}`",
        f"list of {kind}s" if field.type.repeated else kind,
        "required" if not field.has_default else "none" if default == "null" else f"`{default}`",
        bounds,
    ]


def check_quirks(text: str, sources: dict[str, str]) -> Iterator[str]:
    """Compare the table of kept quirks with the notes in the code, file by file."""
    rows = Counter(cells[0].strip("`") for cells in table_rows(section(text, "Kept quirks")))
    notes = Counter({name: source.count(NOTE) for name, source in sources.items()})
    for name in sorted(set(rows) | set(+notes)):
        if rows[name] != notes[name]:
            yield f"{name} has {notes[name]} {NOTE}, and the table of kept quirks {rows[name]} rows"


def section(text: str, title: str) -> str:
    """The part of a document under a heading, up to the next heading of any level."""
    match = re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return match[1] if match else ""


def table_rows(text: str) -> Iterator[list[str]]:
    """The cells of the rows that begin with a name in code."""
    for line in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE):
        yield [cell.strip() for cell in line.split("|")]


if __name__ == "__main__":
    sys.exit(main())

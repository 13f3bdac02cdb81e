"""The recipe of the miniature, with a Python that makes folders instead of networks."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.options import read_options
from tests.conftest import ROOT

# It writes down what it is asked for, and leaves behind the folders that the recipe goes on with.
# As the real one, it trains nothing twice, goes on for more updates, and refuses other settings.
STAND_IN = """\
import json, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is begun is done as a whole
words = sys.argv[1:]
if words[0] == "-c":
    sys.exit(1)  # no GPU
package = next(word for word in words if word in ("kosmosg", "miniature"))
words = words[words.index(package) + 1 :]
with open({log!r}, "a") as log:
    log.write(json.dumps([package, *words]) + "\\n")
if words[0] == "train":
    place = words.index("--output")
    output = pathlib.Path(words[place + 1])
    updates = int(words[words.index("--updates") + 1])
    settings = json.dumps([word for word in words if word != str(updates)])
    result, told = output / "weights", output / "told.json"
    before = json.loads(told.read_text()) if told.exists() else [0, settings]
    if before[1] != settings or before[0] > updates:
        sys.exit(1)
    if before[0] < updates:
        if result.exists():
            result.rename(output / f"weights-step-{{before[0]:08d}}")
        if [output.name, updates] == {killed!r}:
            sys.exit(137)
        with open({trained!r}, "a") as file:
            file.write(json.dumps([package, *words]) + "\\n")
        for part in ("vae", "unet"):
            (result / part).mkdir(parents=True, exist_ok=True)
        told.write_text(json.dumps([updates, settings]))
elif words[0] == "new":
    pathlib.Path(words[1]).mkdir()
elif words[0] == "vocabulary":
    pathlib.Path(words[1]).mkdir()
elif words[0] == "evaluate":
    pathlib.Path(words[words.index("--sheet") + 1]).touch()
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a run of the recipe ended: exit status, commands, and those of them that trained."""

    status: int
    commands: list[list[str]]
    trained: list[list[str]]


def run(tmp_path: Path, killed: tuple[str, int] | None = None, text: str = "") -> Done:
    """Run it in a project of its own, up to a part and its updates at which it is killed.

    Args:
        tmp_path: Where the project is; made if missing.
        killed: Name and updates of that part.
        text: Of the recipe, if it is to be another one.
    """
    project = tmp_path / "project"
    shutil.copytree(ROOT / "runs", project / "runs", dirs_exist_ok=True)
    for folder in ("weights", "samples"):
        (project / folder).mkdir(exist_ok=True)
    names = ("log", "trained", "program.py", "python")
    log, trained, program, python = (tmp_path / name for name in names)
    for file in (log, trained):
        file.write_text("")
    stops = [*killed] if killed else []
    program.write_text(STAND_IN.format(log=str(log), trained=str(trained), killed=stops))
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{program}" "$@"\n')
    python.chmod(0o755)
    recipe = project / "runs" / "miniature.sh"
    if text:
        recipe.write_text(text)
    environment = {**os.environ, "PYTHON": str(python)}
    done = subprocess.run([recipe], env=environment, capture_output=True, text=True, cwd="/")
    commands, worked = (
        [json.loads(line) for line in file.read_text().splitlines()] for file in (log, trained)
    )
    return Done(status=done.returncode, commands=commands, trained=worked)


def test_every_command_is_one(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.status == 0
    for package, *words in done.commands:
        assert read_options(words, package)
    stages = [words[2] for words in done.commands if words[1] == "train"]
    assert {*stages} == {"clip", "vae", "decoder", "probe", "lm", "align", "instruct"}
    assert (tmp_path / "project" / "weights" / "miniature" / "probe").is_dir()
    assert (tmp_path / "project" / "samples" / "miniature.png").is_file()


@pytest.mark.parametrize(
    "killed", [("clip", 5000), ("vae", 6000), ("vae-decoder", 3000), ("probe", 6000), ("lm", 1500)]
)
def test_it_goes_on_where_it_was_stopped(tmp_path: Path, killed: tuple[str, int]) -> None:
    """Everything is trained once, and finished parts are compared again.

    The order is that of the recipe, but for parts that are trained side by side.
    """
    whole = run(tmp_path / "whole")
    begun = run(tmp_path / "again", killed)
    assert begun.status == 137
    assert not (tmp_path / "again" / "project" / "weights" / "miniature").exists()
    rest = run(tmp_path / "again")
    assert rest.status == 0
    assert sorted(begun.trained + rest.trained) == sorted(whole.trained)
    assert all(words in rest.commands for words in begun.trained)
    again = run(tmp_path / "again")
    assert (again.status, again.trained) == (0, [])


def test_other_settings_of_a_finished_part_are_refused(tmp_path: Path) -> None:
    assert run(tmp_path).status == 0
    recipe = ROOT / "runs" / "miniature.sh"
    text = recipe.read_text()
    assert "--snr-gamma 5" in text
    found = run(tmp_path, text=text.replace("--snr-gamma 5", "--snr-gamma 4"))
    assert (found.status, found.trained) == (1, [])
    assert found.commands[-1][:3] == ["miniature", "train", "decoder"]

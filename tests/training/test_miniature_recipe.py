"""The recipe of the miniature, with a Python that makes folders instead of networks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kosmosg import cli
from tests.conftest import ROOT

# It writes down what it is asked for, and leaves behind the folders that the recipe goes on with.
STAND_IN = """\
import json, pathlib, sys
words = sys.argv[1:]
if words[0] == "-c":
    sys.exit(1)  # no GPU
words = words[words.index("kosmosg") + 1 :]
with open({log!r}, "a") as log:
    log.write(json.dumps(words) + "\\n")
if words[0] == "train":
    if words[words.index("--output") + 1].endswith("/" + {killed!r}):
        sys.exit(137)
    result = pathlib.Path(words[words.index("--output") + 1], "weights")
    for part in ("vae", "unet"):
        (result / part).mkdir(parents=True, exist_ok=True)
elif words[0] == "new":
    pathlib.Path(words[1]).mkdir()
elif words[:2] == ["miniature", "vocabulary"]:
    pathlib.Path(words[2]).mkdir()
elif words[0] == "evaluate":
    pathlib.Path(words[words.index("--sheet") + 1]).touch()
"""


def run(tmp_path: Path, killed: str = "") -> tuple[int, list[list[str]]]:
    """Run it in a project of its own; return its exit status and the commands."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "runs", project / "runs", dirs_exist_ok=True)
    for folder in ("weights", "samples"):
        (project / folder).mkdir(exist_ok=True)
    log, program, python = (tmp_path / name for name in ("log", "program.py", "python"))
    log.unlink(missing_ok=True)
    program.write_text(STAND_IN.format(log=str(log), killed=killed))
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{program}" "$@"\n')
    python.chmod(0o755)
    recipe = project / "runs" / "miniature.sh"
    environment = {**os.environ, "PYTHON": str(python)}
    done = subprocess.run([recipe], env=environment, capture_output=True, text=True, cwd="/")
    commands = [json.loads(line) for line in log.read_text().splitlines()]
    return done.returncode, commands


def test_every_command_is_one(tmp_path: Path) -> None:
    status, commands = run(tmp_path)
    assert status == 0
    for words in commands:
        assert callable(cli.build_parser().parse_args(words).run)
    stages = [words[1] for words in commands if words[0] == "train"]
    assert {*stages} == {"clip", "vae", "decoder", "probe", "lm", "align", "instruct"}
    assert (tmp_path / "project" / "weights" / "miniature" / "probe").is_dir()
    assert (tmp_path / "project" / "samples" / "miniature.png").is_file()


@pytest.mark.parametrize("killed", ["vae", "lm"])
def test_it_goes_on_where_it_was_stopped(tmp_path: Path, killed: str) -> None:
    whole = run(tmp_path / "whole")[1]
    status, begun = run(tmp_path / "again", killed)
    assert status == 137
    assert not (tmp_path / "again" / "project" / "weights" / "miniature").exists()
    status, rest = run(tmp_path / "again")
    assert status == 0
    # What is to be trained is trained once, in the same order; what was killed, twice.
    trained = [words for words in begun[:-1] + rest if words[0] == "train"]
    assert begun[-1] in rest
    assert trained == [words for words in whole if words[0] == "train"]

"""Around the container: what it installs, how it is pushed, and a check that can fail."""

import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from scripts import image_test
from tests.conftest import ROOT

# Stands where Cog's program is: it writes down where it runs, what lies there, and its words.
COG = """\
#!/bin/sh
pwd > "$LOG" && echo "$@" >> "$LOG" && find . -type f -o -type l | sort >> "$LOG"
"""


def read_pins(name: str) -> dict[str, str]:
    """Versions by package; names as pip compares them."""
    lines = (ROOT / name).read_text().splitlines()
    pins = (line.partition("==") for line in lines if re.match(r"[\w-]+==", line))
    return {package.lower().replace("_", "-"): version for package, _, version in pins}


def test_the_lock_has_what_is_required() -> None:
    required, locked = read_pins("requirements.txt"), read_pins("requirements.lock")
    assert required.items() <= locked.items(), "run make lock"
    assert len(locked) > len(required)
    sdk = yaml.safe_load((ROOT / "cog.yaml").read_text())["build"]["sdk_version"]
    assert locked["coglet"] == sdk == read_pins("requirements-dev.txt")["cog"]
    assert f"cog=={sdk}" in (ROOT / "Dockerfile").read_text()
    assert f"TORCH={locked['torch']}" in (ROOT / "Dockerfile").read_text()


def test_both_images_and_the_local_environment_take_the_lock() -> None:
    build = yaml.safe_load((ROOT / "cog.yaml").read_text())["build"]
    assert build["python_requirements"] == "requirements.lock"
    for name in ("Dockerfile", "Makefile"):
        assert "sed '/^# In the container alone/,$" in (ROOT / name).read_text()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A used checkout: weights, and large files that are none of the image's business."""
    folder = tmp_path / "project"
    for name in ("scripts/push.sh", "predict.py", "cog.yaml", ".dockerignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "scripts" / "push.sh").chmod(0o755)
    for word in ("init -q", "add -A"):
        subprocess.run(["git", *word.split()], cwd=folder, check=True)
    made = {
        "weights/controlnet/canny/model.safetensors": 12,
        "weights/kosmos-g/model_index.json": 1,
        "weights/kosmos-g/unet/model.safetensors": 12,
        "weights/kosmos-g/unet/stray.py": 1,
        "weights/checkpoints/kosmos-g.pt": 12,
        ".venv/lib/libtorch.so": 12,
        "outputs/run/weights.safetensors": 12,
    }
    for name, size in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    return folder


def push(project: Path, *words: str, cog: str = COG) -> subprocess.CompletedProcess:
    """Run the script with a program in Cog's place, or with none."""
    programs = project.parent / "bin"
    programs.mkdir(exist_ok=True)
    if cog:
        (programs / "cog").write_text(cog)
        (programs / "cog").chmod((programs / "cog").stat().st_mode | stat.S_IEXEC)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "LOG": str(project.parent / "log")}
    script = project / "scripts" / "push.sh"
    return subprocess.run([script, *words], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["r8.im/you/kosmos-g"], "push r8.im/you/kosmos-g --separate-weights"),
        (["--build", "kosmos-g"], "build --separate-weights -t kosmos-g"),
    ],
)
def test_cog_runs_in_a_clean_tree(project: Path, words: list[str], command: str) -> None:
    done = push(project, *words)
    assert done.returncode == 0, done.stderr
    place, told, *files = (project.parent / "log").read_text().splitlines()
    assert told == command
    assert {file.removeprefix("./") for file in files} == {
        *(".dockerignore", "cog.yaml", "predict.py", "scripts/push.sh"),
        "weights/controlnet/canny/model.safetensors",
        *("weights/kosmos-g/model_index.json", "weights/kosmos-g/unet/model.safetensors"),
    }
    assert not Path(place).exists(), "the tree is removed behind it"
    assert (project / "weights/kosmos-g/unet/stray.py").exists(), "and nothing of the project"


def test_a_push_that_fails_says_so_and_leaves_nothing(project: Path) -> None:
    assert push(project, "r8.im/you/kosmos-g", cog="#!/bin/sh\nexit 3\n").returncode == 3
    assert {path.name for path in project.parent.iterdir()} == {"project", "bin"}


@pytest.mark.parametrize(
    ("words", "cog", "removed", "message"),
    [
        ([], COG, "", "usage: scripts/push.sh"),
        (["a", "b"], COG, "", "usage: scripts/push.sh"),
        (["r8.im/you/kosmos-g"], "", "", "cog is not installed"),
        (["r8.im/you/kosmos-g"], COG, "weights/kosmos-g/model_index.json", "there are no weights"),
    ],
)
def test_mistakes(project: Path, words: list[str], cog: str, removed: str, message: str) -> None:
    if removed:
        (project / removed).unlink()
    done = push(project, *words, cog=cog)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert not (project.parent / "log").exists()


def test_without_an_engine_the_image_is_not_called_tested(tmp_path: Path) -> None:
    nowhere = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    command = [sys.executable, "-m", image_test.__name__, "kosmos-g"]
    done = subprocess.run(command, env=nowhere, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Docker engine answers")


def test_an_empty_image_is_seen() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(file, "png")
    with pytest.raises(image_test.CheckFailed, match="nothing is on"):
        image_test.look_at(file.getvalue(), "white")

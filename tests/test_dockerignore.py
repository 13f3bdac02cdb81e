"""What `.dockerignore` lets into the container, by Docker's own rules of matching."""

import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
FILE = ROOT / ".dockerignore"

INCLUDED = [
    "predict.py",
    "cog.yaml",
    "requirements.txt",
    "requirements.lock",
    "LICENSE",
    "kosmosg/__init__.py",
    "kosmosg/models/aligner.py",
    "kosmosg/checkpoints/manifest.toml",
    "weights/kosmos-g/model_index.json",
    "weights/kosmos-g/kosmosg/model-00001-of-00004.safetensors",
    "weights/kosmos-g/tokenizer/dict.txt",
    "weights/miniature/unet/config.json",
    "weights/miniature-controlnet/canny/config.json",
    "weights/controlnet/canny/diffusion_pytorch_model.safetensors",
    "weights/annotators/depth/model.safetensors",
    "weights/annotators/softedge/table5_pidinet.pth",
    "weights/annotators/normal/scannet.pt",
    # Cog's own files: without them its build fails.
    ".cog/openapi_schema.json",
    ".cog/tmp/build1/requirements.txt",
]
EXCLUDED = [
    ".git/HEAD",
    ".venv/bin/python",
    ".venv/lib/python3.11/site-packages/torch/__init__.py",
    ".pytest_cache/README",
    ".ruff_cache/0.17.6/1",
    ".import_linter_cache/x",
    ".ci/run",
    "Makefile",
    "README.md",
    "requirements-dev.txt",
    "scripts/predict.py",
    "tests/test_golden.py",
    "tests/golden/tiny/checkpoint.safetensors",
    "samples/cat.jpg",
    "docs/index.html",
    "benchmarks/speed.py",
    "outputs/miniature/vae/weights/vae/config.json",
    "kosmosg/__pycache__/cli.cpython-311.pyc",
    "kosmosg/models/__pycache__/aligner.cpython-311.pyc",
    "weights/README.md",
    "weights/.kosmosg.lock",
    "weights/stray.safetensors",
    "weights/checkpoints/kosmos-g.pt",
    "weights/checkpoints/kosmos-g.pt.%22one%22.part",
    "weights/kosmos-g.0f1e2d3c.part/unet/config.json",
    "weights/stable-diffusion-v1-5/unet/diffusion_pytorch_model.safetensors",
    "weights/tokenizer/dict.txt",
    "weights/kosmos-g/left-behind.pt",
    "weights/annotators/softedge/table5_pidinet.pth.part",
    "weights/controlnet/canny/diffusion_pytorch_model.bin.pt",
    "stray.pt",
]


def read_patterns(text: str) -> list[tuple[bool, re.Pattern[str]]]:
    """Reads patterns as Docker does: whether each takes back in, and what it matches."""
    patterns = []
    for line in text.splitlines():
        pattern = line.strip()
        if not pattern or line.startswith("#"):
            continue
        takes_in = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip().strip("/")
        parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        regex = "".join(wild.get(part, re.escape(part)) for part in parts)
        patterns.append((takes_in, re.compile(regex)))
    return patterns


def is_ignored(path: str, patterns: list[tuple[bool, re.Pattern[str]]]) -> bool:
    """Whether Docker leaves a file out: the last pattern that fits it or a folder above decides."""
    above = [str(folder) for folder in PurePosixPath(path).parents if folder.name]
    ignored = False
    for takes_in, regex in patterns:
        if any(regex.fullmatch(each) for each in (path, *above)):
            ignored = not takes_in
    return ignored


def context(root: Path) -> set[str]:
    """The files that a build in a folder would get."""
    patterns = read_patterns(FILE.read_text(encoding="utf-8"))
    files = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {file for file in files if not is_ignored(file, patterns)}


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("a", "a", True),
        ("a", "a/b/c", True),
        ("a", "b/a", False),  # unlike in .gitignore
        ("/a", "a/b", True),
        ("a/*", "a/b/c", True),
        ("*.pt", "x.pt", True),
        ("*.pt", "a/x.pt", False),
        ("**/*.pt", "x.pt", True),
        ("**/*.pt", "a/b/x.pt", True),
        ("a/*\n!a/b", "a/b/c", False),
        ("a/*\n!a/b", "a/c", True),
        ("!a/b\na/*", "a/b/c", True),  # the order decides
        ("# a\n\na", "a", True),
        ("a?c", "abc", True),
        ("a.c", "abc", False),
    ],
)
def test_the_rules_of_matching(pattern: str, path: str, ignored: bool):
    assert is_ignored(path, read_patterns(pattern)) == ignored


def test_a_working_tree(tmp_path: Path):
    for file in INCLUDED + EXCLUDED:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert context(tmp_path) == set(INCLUDED)


def test_the_repository():
    """Whatever is tracked: the package and what predict.py reads, and nothing else."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = found.stdout.splitlines()
    patterns = read_patterns(FILE.read_text(encoding="utf-8"))
    kept = {file for file in files if not is_ignored(file, patterns)}
    assert kept >= {
        "predict.py",
        "cog.yaml",
        "requirements.txt",
        "weights/miniature/unet/config.json",
    }
    assert kept >= {file for file in files if file.startswith("kosmosg/")}
    top = {file.partition("/")[0] for file in kept}
    rest = {".dockerignore", "LICENSE", "cog.yaml", "pyproject.toml", "predict.py"}
    rest |= {"requirements.txt", "requirements.lock"}
    assert top <= rest | {"kosmosg", "weights"}, "does it belong in the image?"


def test_patterns_mean_the_same_to_docker_and_cog():
    """A bare name means the root to Docker, and any depth to Cog's search for weights."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line]
    patterns = [line.removeprefix("!") for line in lines if not line.startswith("#")]
    assert [each for each in patterns if not each.startswith(("/", "**/"))] == []

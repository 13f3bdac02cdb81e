"""Pin every package of the container: ``requirements.txt`` → ``requirements.lock``.

torch brings other packages with it in each of its builds, so these are left to it.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "# In the container alone."
HEAD = """\
# What the container installs, transitive packages included. Written by `make lock` from
# requirements.txt; the local environment takes the same, but for the end.
"""
# Of torch's or Cog's own choice.
THEIRS = (
    "cog==",
    "nvidia-",
    "cuda-",
    "triton==",
    "setuptools==",
    "sympy==",
    "mpmath==",
    "networkx==",
)


def main() -> int:
    """Write the lock."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    common, mark, _ = text.partition(MARK)
    assert mark, f"requirements.txt lacks the line {MARK}"
    # Cog installs itself; what it asks for besides is pinned like the rest.
    text += f"\ncog=={find(text.splitlines(), 'coglet').partition('==')[2]}"
    everything = resolve(text)
    shared = resolve(f"{common}\n{find(everything, 'torch')}\n{find(everything, 'cog')}")
    rest = [line for line in everything if line not in shared or line.startswith("torch==")]
    lines = [line for line in shared if line not in rest]
    lock = "\n".join([HEAD, *keep(lines), "", MARK, *keep(rest), ""])
    (ROOT / "requirements.lock").write_text(lock, encoding="utf-8")
    return 0


def resolve(requirements: str) -> list[str]:
    """Pins of everything that requirements ask for, on Linux with the container's Python."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-header"]
    command += ["--no-annotate", "--python-version", "3.11"]
    command += ["--python-platform", "x86_64-manylinux_2_28"]
    done = subprocess.run(command, input=requirements, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"error: {done.stderr.strip()}")
    return [line for line in done.stdout.splitlines() if "==" in line]


def find(lines: list[str], package: str) -> str:
    """The pin of a package."""
    return next(line for line in lines if line.startswith(f"{package}=="))


def keep(lines: list[str]) -> list[str]:
    """Leave out what torch and Cog bring."""
    return [line for line in lines if not line.startswith(THEIRS)]


if __name__ == "__main__":
    sys.exit(main())

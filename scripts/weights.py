"""Which weights the local commands run on."""

import os
import subprocess
import sys
from pathlib import Path

from kosmosg.weights import DEFAULT_DIRECTORY, ENVIRONMENT_VARIABLE
from scripts.local_server import ROOT

NOISE_WEIGHTS = ROOT / "outputs" / "noise-weights"
NOISE_NOTE = (
    "No weights were named (WEIGHTS=…) and none are in weights/kosmos-g: running a small model "
    "with RANDOM weights. Its pictures are noise; they show that every part works, not what "
    "KOSMOS-G can do."
)


def choose_weights(named: str) -> Path:
    """Take the weights that were named, or that are there, or a small random model."""
    default = ROOT / DEFAULT_DIRECTORY
    named = named or os.environ.get(ENVIRONMENT_VARIABLE, "")
    if named or default.is_dir():
        return Path(named) if named else default
    print(NOISE_NOTE, flush=True)
    # A process of its own: making the model imports torch, and the caller only talks HTTP.
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "tests.tiny", str(NOISE_WEIGHTS)]
    subprocess.run(command, cwd=ROOT, env=os.environ | quiet, check=True)
    return NOISE_WEIGHTS

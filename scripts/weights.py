"""Which weights the local commands run on."""

import subprocess
import sys
from pathlib import Path

from scripts.local_server import ROOT

NOISE_WEIGHTS = ROOT / "outputs" / "noise-weights"
NOISE_NOTE = (
    "No weights were named (WEIGHTS=…): running a small model with RANDOM weights. "
    "Its pictures are noise; they show that every part works, not what KOSMOS-G can do."
)


def choose_weights(named: str) -> Path:
    """Take the weights that were named, or make a small random model and say so."""
    if named:
        return Path(named)
    print(NOISE_NOTE, flush=True)
    # A process of its own: making the model imports torch, and the caller only talks HTTP.
    subprocess.run([sys.executable, "-m", "tests.tiny", NOISE_WEIGHTS], cwd=ROOT, check=True)
    return NOISE_WEIGHTS

"""The stages of KOSMOS-G itself begin and end with a weights directory."""

import shutil
from pathlib import Path

from kosmosg.checkpoints.folder import write_model_index
from kosmosg.models.kosmosg import KosmosG

# What is not carried over: the one is written anew, the other belongs to stage 2 alone, which
# writes it beside.
TRAINED = ("kosmosg", "reconstruction")


def save_weights(kosmosg: KosmosG, stage: str, start: Path, directory: Path) -> None:
    """Write a weights directory with a trained KOSMOS-G.

    Args:
        kosmosg: Trained.
        stage: The stage it has been through.
        start: Weights directory that the stage began with, for all that is not trained.
        directory: Where to write; made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for part in start.iterdir():
        if part.is_dir() and part.name not in TRAINED:
            shutil.copytree(part, directory / part.name, dirs_exist_ok=True)
    kosmosg.config.stage = stage
    kosmosg.save_pretrained(directory / "kosmosg")
    write_model_index(directory)

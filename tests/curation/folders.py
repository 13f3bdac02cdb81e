"""Folders to curate, and what is in those that were written."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_edits(root: Path, count: int) -> Path:
    """A set of edits in which every second folder has two pairs."""
    seeds = []
    for number in range(count):
        folder = root / f"{number:07d}"
        folder.mkdir(parents=True)
        prompt = {"input": f"image {number}", "edit": "make it blue"}
        (folder / "prompt.json").write_text(json.dumps(prompt))
        names = [str(100 * number + n) for n in range(1 + number % 2)]
        seeds.append([folder.name, names])
        for name in names:
            for half in (0, 1):
                values = np.random.default_rng(int(name) + half).integers(0, 256, (32, 32, 3))
                image = Image.fromarray(values.astype(np.uint8))
                image.save(folder / f"{name}_{half}.jpg")
    (root / "seeds.json").write_text(json.dumps(seeds))
    return root


def shards(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.tar"))}

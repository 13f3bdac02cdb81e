"""The folder of reference numbers: where it is, how its parts are read and converted.

``KOSMOSG_GOLDEN`` names another folder of the same form; cases, sizes and prompts are read from
its files.
"""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from kosmosg.checkpoints.convert import convert_checkpoint
from kosmosg.models.config import read_sizes
from kosmosg.prompts.batch import Batch
from tests import tiny

GOLDEN = Path(os.environ.get("KOSMOSG_GOLDEN", Path(__file__).parent / "golden"))


def names(file: str) -> list[str]:
    with safe_open(GOLDEN / file, framework="np") as tensors:
        return list(tensors.keys())


def read_json(file: str) -> dict:
    return json.loads((GOLDEN / file).read_text(encoding="utf-8"))


def convert_golden(folder: Path, *more: str) -> Path:
    """Run the real converter on the tiny checkpoint, with further files merged into it."""
    tensors: dict[str, Tensor] = {}
    for file in ("checkpoint.safetensors", *more):
        tensors |= load_file(GOLDEN / "tiny" / file)
    save_file(tensors, folder / "checkpoint.safetensors")
    sizes = read_sizes(GOLDEN / "tiny" / "config.json")
    tiny.write_tokenizer(folder / "tokenizer", sizes["vocab_size"])
    convert_checkpoint(
        folder / "checkpoint.safetensors",
        folder / "weights",
        tokenizer=folder / "tokenizer",
        stable_diffusion=str(GOLDEN / "sampler"),
        sizes=sizes,
        progress=False,
    )
    return folder / "weights"


def case_batch(inputs: dict[str, Tensor], case: str) -> Batch:
    index = inputs[f"{case}.image_index"]
    return Batch(
        ids=inputs[f"{case}.src_tokens"],
        image_mask=inputs[f"{case}.img_gpt_input_mask"],
        pixels=inputs["pixel_values_f16"][index].float() if len(index) else None,
    )


def text_batch(ids: Tensor) -> Batch:
    return Batch(ids=ids, image_mask=torch.zeros_like(ids, dtype=torch.bool), pixels=None)

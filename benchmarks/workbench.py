"""What all suites share: the device, the weights, and pipelines in each precision."""

import gc
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch

from benchmarks.fabricate import Checkpoint
from benchmarks.machine import free_memory, has_bfloat16
from benchmarks.measuring import NotMeasured
from benchmarks.rows import BFLOAT16, CUDA, ROW
from kosmosg.pipeline import KosmosGPipeline

# As safetensors names them.
STORED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
# Memory that drawing a picture of 512 × 512 takes beside the weights, with some to spare.
WORKING = 2.5e9


@dataclass(kw_only=True)
class Workbench:
    """The settings of a run, and the pipelines that suites share.

    Attributes:
        device: Where to measure.
        weights: Weights directory.
        checkpoint: Where the weights come from; ``None`` if they were not fabricated.
        folder: For what trials write.
        rounds: Number of values per row.
        steps: Denoising steps that are really run; the rest of 50 is computed from them.
        everything: Also measure on a CPU what is meant for a GPU.
    """

    device: torch.device
    weights: Path
    checkpoint: Checkpoint | None
    folder: Path
    rounds: int
    steps: int
    everything: bool = False
    _pipelines: dict[str, KosmosGPipeline] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The files that hold the weights."""
        return sorted(self.weights.rglob("*.safetensors"))

    @property
    def size_of_files(self) -> int:
        """Bytes of the files that hold the weights."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def stored_precision(self) -> str:
        """The precision that the weights have in their files."""
        return read_contents(self.files)[1]

    @property
    def fast_precision(self) -> str:
        """The precision that the device computes fastest in without a loss that shows."""
        if self.device.type == "cuda":
            return "float16"
        return "bfloat16" if has_bfloat16(self.device) else "float32"

    def lacks(self, row: str) -> str:
        """Why a row cannot be measured here; empty if it can."""
        needs = ROW[row].needs
        if CUDA in needs and self.device.type != "cuda" and not self.everything:
            return "no CUDA device"
        if BFLOAT16 in needs and not has_bfloat16(self.device):
            return "no bfloat16 arithmetic in this processor"
        return ""

    def pipeline(self, precision: str) -> KosmosGPipeline:
        """Open the weights in a precision, or take them as they are open already.

        Raises:
            NotMeasured: If the memory is too small for it.
        """
        if precision not in self._pipelines:
            dtype: torch.dtype = getattr(torch, precision)
            parameters, _ = read_contents(self.files)
            needed, free = parameters * dtype.itemsize, free_memory(self.device)
            # A small model's pictures take next to nothing.
            needed += min(needed, WORKING)
            if needed > free:
                raise NotMeasured(
                    f"{needed / 1e9:.1f} GB of memory are needed and {free / 1e9:.1f} GB free"
                )
            self._pipelines[precision] = KosmosGPipeline.from_pretrained(
                self.weights, torch_dtype=dtype, device=self.device
            )
        return self._pipelines[precision]

    def release(self) -> None:
        """Give back the memory of all pipelines."""
        self._pipelines.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def read_contents(files: Iterable[Path]) -> tuple[int, str]:
    """Number of values in safetensors files, and the precision of most of them."""
    counts: dict[str, int] = {}
    for path in files:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                kind = entry["dtype"]
                counts[kind] = counts.get(kind, 0) + prod(entry["shape"])
    return sum(counts.values()), STORED[max(counts, key=lambda kind: counts[kind])]

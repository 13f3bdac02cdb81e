"""A stage with everything that the loop has to keep in order, and nothing more.

It has dropout, a frozen part, a buffer that changes, and noise from seeds that travel with the
samples. ``train_toy`` is also what the processes of ``processes`` run.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kosmosg.checkpoints.loading import MODULE_FILE, save_module
from kosmosg.errors import KosmosGError
from kosmosg.training.loop import train
from kosmosg.training.options import LoopOptions
from kosmosg.training.stage import Stage, Stream
from kosmosg.utils.files import LOCK
from tests.training.logs import read_log

WIDTH = 8
ERROR_FILE = "error.txt"


@dataclass(frozen=True, kw_only=True)
class ToyBatch:
    """Inputs, and the seeds of their noise."""

    inputs: Tensor
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    def to(self, device: torch.device) -> "ToyBatch":
        return replace(self, inputs=self.inputs.to(device))


class ToyStage(Stage):
    """Learns a fixed linear map."""

    def __init__(self, dropout: float = 0.1, hidden: int = 16):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(WIDTH, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )
        self.frozen = nn.Linear(WIDTH, 1).requires_grad_(False)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def set_modes(self) -> None:
        self.train()

    def collate(self, samples: Sequence[int]) -> ToyBatch:
        rows = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(s)) for s in samples]
        return ToyBatch(inputs=torch.stack(rows), seeds=tuple(samples))

    def losses(self, batch: ToyBatch) -> dict[str, Tensor]:
        with torch.no_grad():
            self.seen += 1
        found = self.network(batch.inputs + 0.01 * self.frozen(batch.inputs).tanh())
        error = (found - batch.inputs.sum(1, keepdim=True)).square().mean()
        return {"loss": error.float(), "double": 2 * error.float()}

    def save(self, directory: Path) -> None:
        save_module(self, directory)


class ToyStream(Stream):
    """Counts; each process its own part."""

    def __init__(self, rank: int, processes: int, end: int | None = None):
        self._position, self._processes, self._end = rank, processes, end

    def __next__(self) -> int:
        if self._position == self._end:
            raise KeyboardInterrupt
        self._position += self._processes
        return self._position - self._processes

    def state_dict(self) -> dict[str, Any]:
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position = state["position"]


def toy_options(output: Path, **changes: Any) -> LoopOptions:
    """Settings with all that can go wrong switched on."""
    settings: dict[str, Any] = {
        "output": output,
        "updates": 12,
        "batch_size": 8,
        "micro_batch_size": 3,
        "learning_rate": 0.03,
        "warmup_updates": 3,
        "ema_decay": 0.9,
        "save_every": 2,
        "log_every": 1,
    }
    return LoopOptions(**(settings | changes))


def train_toy(
    options: LoopOptions,
    *,
    end: int | None = None,
    build: Callable[[], Stage] = ToyStage,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Train, up to a sample at which the user presses Control-C."""

    def open_stream(rank: int, processes: int) -> ToyStream:
        return ToyStream(rank, processes, end)

    return train(build, open_stream, options, settings)


def weights(run: Path) -> dict[str, Tensor]:
    """Open the result of a run."""
    return load_file(run / "weights" / MODULE_FILE)


def times(run: Path) -> dict[Path, int]:
    """When each file of a run was written, but for the one that says who holds it."""
    files = (file for file in run.rglob("*") if file.name != LOCK)
    return {file: file.stat().st_mtime_ns for file in files}


def assert_same_run(found: Path, wanted: Path) -> None:
    """Every logged number and every weight is equal, bit by bit."""
    assert read_log(found) == read_log(wanted)
    assert weights(found).keys() == weights(wanted).keys()
    for name, tensor in weights(wanted).items():
        assert torch.equal(weights(found)[name], tensor), name


def train_in_process(options: LoopOptions) -> None:
    """Train, and leave the message of an error in the run's folder."""
    try:
        train_toy(options)
    except KosmosGError as error:
        name = f"{os.environ.get('RANK', 0)}-{ERROR_FILE}"
        (options.output / name).write_text(json.dumps(str(error)))
        raise SystemExit(1) from error

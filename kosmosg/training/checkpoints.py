"""Checkpoints of a run: written whole or not at all, and free of pickles.

    checkpoints/step-00002000/
        state.json            step, settings, loss scale, what the log has not told yet
        weights.safetensors   the trained parameters and all buffers
        optimizer.safetensors Adam's moments, as NAME|exp_avg, …
        ema.safetensors       the moving average, if there is one
        stream-0.json         where each process stands in the data

A checkpoint is written into a folder with another name, which is renamed when everything is on the
disk; what a killed run leaves behind is taken away by the next one. There are no random states in
it: the chance of every update follows from seed and step (see ``loop``).
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kosmosg.errors import TrainingError
from kosmosg.training.disk import flush, flush_all, reason

UNFINISHED = ".part"
SEPARATOR = "|"  # occurs in no parameter's name


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything a run needs to go on.

    Attributes:
        step: Updates done.
        identity: The settings that a resumed run must share.
        scaler: State of the loss scale; empty without one.
        weights: Trained parameters and buffers, by name.
        optimizer: State of each parameter: name → (such as "exp_avg") → tensor.
        ema: Moving average of the trained parameters, by name; empty without one.
        report: Losses counted since the last entry of the log.
    """

    step: int
    identity: dict[str, Any]
    scaler: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, dict[str, Tensor]]
    ema: dict[str, Tensor]
    report: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, directory: Path, keep: int):
        self.directory = directory
        self._keep = keep

    def latest(self) -> Path | None:
        """Find the newest checkpoint."""
        found = self._finished()
        return found[-1] if found else None

    def clear_unfinished(self) -> None:
        """Take away what a killed run left half-written."""
        for leftover in self.directory.glob(f"step-*{UNFINISHED}"):
            shutil.rmtree(leftover)

    @contextmanager
    def writing(self, step: int, main: bool) -> Iterator[Path]:
        """Give the folder that the checkpoint of a step is written into.

        Raises:
            TrainingError: If the disk is full or cannot be written. What was there stays.
        """
        unfinished = self.directory / f"step-{step:08d}{UNFINISHED}"
        try:
            unfinished.mkdir(parents=True, exist_ok=True)
            yield unfinished
        except (OSError, SafetensorError) as error:
            if main:
                shutil.rmtree(unfinished, ignore_errors=True)
            raise TrainingError(self._explain(error, step)) from error

    def finish(self, step: int) -> Path:
        """Make a written checkpoint count, and remove the oldest beyond the number to keep.

        Raises:
            TrainingError: As ``writing`` does; some disks are full only now.
        """
        final = self.directory / f"step-{step:08d}"
        with self.writing(step, main=True) as unfinished:
            flush_all(unfinished)
            unfinished.rename(final)
            flush(self.directory)
        for old in self._finished()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def _finished(self) -> list[Path]:
        return sorted(self.directory.glob("step-" + "[0-9]" * 8))

    def _explain(self, error: Exception, step: int) -> str:
        latest = self.latest()
        good = f"The last good one is {latest}" if latest else "There is none yet"
        return (
            f"The checkpoint of step {step} could not be written to {self.directory}: "
            f"{reason(error)}. {good}; make room and start the same command again to go on from "
            "there."
        )


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write all that the processes have in common."""
    state = {
        "step": checkpoint.step,
        "identity": checkpoint.identity,
        "scaler": checkpoint.scaler,
        "report": checkpoint.report,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    save_file(_plain(checkpoint.weights), folder / "weights.safetensors")
    moments = {
        f"{name}{SEPARATOR}{moment}": tensor
        for name, moments in checkpoint.optimizer.items()
        for moment, tensor in moments.items()
    }
    save_file(_plain(moments), folder / "optimizer.safetensors")
    if checkpoint.ema:
        save_file(_plain(checkpoint.ema), folder / "ema.safetensors")


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read what ``write_checkpoint`` wrote.

    Raises:
        TrainingError: If a file is missing or damaged.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        optimizer: dict[str, dict[str, Tensor]] = {}
        for key, tensor in load_file(folder / "optimizer.safetensors").items():
            name, moment = key.split(SEPARATOR)
            optimizer.setdefault(name, {})[moment] = tensor
        ema = folder / "ema.safetensors"
        return Checkpoint(
            step=state["step"],
            identity=state["identity"],
            scaler=state["scaler"],
            weights=load_file(folder / "weights.safetensors"),
            optimizer=optimizer,
            ema=load_file(ema) if ema.exists() else {},
            report=state["report"],
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise unreadable(folder, str(error)) from error


def read_identity(folder: Path) -> dict[str, Any]:
    """Read the settings of a checkpoint alone.

    Raises:
        TrainingError: If the file is missing or damaged.
    """
    try:
        return dict(json.loads((folder / "state.json").read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(folder, str(error)) from error


def unreadable(folder: Path, reason: str) -> TrainingError:
    """Say that a checkpoint cannot be used."""
    return TrainingError(
        f"The checkpoint {folder} cannot be read ({reason}). Remove it to go on from the one "
        "before it, or to begin anew."
    )


def check_identity(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Check that a run may go on from a checkpoint.

    Raises:
        TrainingError: Naming the settings that differ.
    """
    now = json.loads(json.dumps(wanted))  # as it was written: tuples are lists
    differences = [
        f"{key} was {found.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(found.keys() | now.keys())
        if found.get(key) != now.get(key)
    ]
    if differences:
        raise TrainingError(
            f"{folder} is of a run with other settings: {'; '.join(differences)}. Go on with the "
            "same ones, or name another output folder."
        )


def write_stream(state: dict[str, Any], folder: Path, rank: int) -> None:
    """Write where one process stands in the data."""
    (folder / f"stream-{rank}.json").write_text(json.dumps(state), encoding="utf-8")


def read_stream(folder: Path, rank: int) -> dict[str, Any]:
    """Read where one process stood in the data.

    Raises:
        TrainingError: If the file is missing or damaged.
    """
    try:
        return json.loads((folder / f"stream-{rank}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(folder, str(error)) from error


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

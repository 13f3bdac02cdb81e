"""What stays of a run: checkpoints to go on from, exactly, and in the end its result.

    checkpoints/step-00002000/
        state.json            step, settings, loss scale, what the log has not told yet
        streams.json          where each process stands in the data
        weights.safetensors   the trained parameters and all buffers
        optimizer.safetensors Adam's moments, as NAME|exp_avg, …
        ema.safetensors       the moving average, if there is one

Both are written whole or not at all, by the main process, and hold no pickle. There are no random
states in a checkpoint: the chance of every update follows from seed and step (see ``loop``).
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kosmosg.errors import TrainingError
from kosmosg.training.options import CHANGEABLE, LoopOptions
from kosmosg.training.stage import Stage, trainable
from kosmosg.training.state import Checkpoint
from kosmosg.utils.files import atomic_folder, check_settings, lock_folder, reason
from kosmosg.utils.processes import find_processes

CHECKPOINTS = "checkpoints"
SEPARATOR = "|"  # occurs in no parameter's name
OTHERWISE = "name another output folder"


def hold_run(output: Path) -> AbstractContextManager[None]:
    """Hold the folder of a run for this process, also if it holds it already.

    Two starts of one command would write into each other's checkpoints. Of several processes that
    train together, the main one holds it for all.

    Raises:
        TrainingError: If another process holds it, or it cannot be written.
    """
    if not find_processes().is_main_process:
        return nullcontext()
    return lock_folder(
        output, work="training", error=TrainingError, remedy=OTHERWISE, reentrant=True
    )


def find_latest(output: Path) -> Path | None:
    """Find the newest checkpoint of a run."""
    return max(_find_all(output), default=None)


def write_checkpoint(checkpoint: Checkpoint, output: Path, keep: int) -> Path:
    """Write a checkpoint of a run, and remove the oldest beyond the number to keep.

    Raises:
        TrainingError: If the disk is full or cannot be written. What was there stays.
    """
    final = output / CHECKPOINTS / f"step-{checkpoint.step:08d}"
    try:
        with atomic_folder(final) as folder:
            _write(checkpoint, folder)
    except (OSError, SafetensorError) as error:
        latest = find_latest(output)
        good = f"The last good one is {latest}" if latest else "There is none yet"
        raise TrainingError(
            f"The checkpoint of step {checkpoint.step} could not be written to {final.parent}: "
            f"{reason(error)}. {good}; make room and start the same command again to go on from "
            "there."
        ) from error
    for old in _find_all(output)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read what ``write_checkpoint`` wrote.

    Raises:
        TrainingError: If a file is missing or damaged.
    """
    try:
        optimizer: dict[str, dict[str, Tensor]] = {}
        for key, tensor in load_file(folder / "optimizer.safetensors").items():
            name, moment = key.split(SEPARATOR)
            optimizer.setdefault(name, {})[moment] = tensor
        ema = folder / "ema.safetensors"
        return Checkpoint(
            **json.loads((folder / "state.json").read_text(encoding="utf-8")),
            streams=json.loads((folder / "streams.json").read_text(encoding="utf-8")),
            weights=load_file(folder / "weights.safetensors"),
            optimizer=optimizer,
            ema=load_file(ema) if ema.exists() else {},
        )
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise unusable(folder, "cannot be read", error) from error


def unusable(folder: Path, problem: str, error: Exception) -> TrainingError:
    """Say that a checkpoint cannot be used, and what to do."""
    return TrainingError(
        f"The checkpoint {folder} {problem} ({reason(error)}). Remove it to go on from the one "
        "before it, or to begin anew."
    )


def is_extended(checkpoint: Checkpoint, options: LoopOptions) -> bool:
    """Tell whether a run was finished, and is asked for more updates."""
    return checkpoint.settings.get("updates") == checkpoint.step < options.updates


def check_resumption(
    checkpoint: Checkpoint, wanted: Mapping[str, Any], options: LoopOptions, folder: Path
) -> list[str]:
    """Check that a run may go on from a checkpoint.

    Args:
        checkpoint: Where it goes on from.
        wanted: All settings of the run that is to go on.
        options: Those among them that the loop reads.
        folder: Of the checkpoint.

    Returns:
        What has changed and may, in words.

    Raises:
        TrainingError: If other settings differ.
    """
    more = {"updates": options.updates} if is_extended(checkpoint, options) else {}
    # Behind the last update there is nothing to change.
    changeable = CHANGEABLE if checkpoint.step < options.updates else ()
    return check_settings(
        checkpoint.settings | more,
        wanted,
        place=folder,
        error=TrainingError,
        remedy=OTHERWISE,
        changeable=changeable,
    )


def last_loss(output: Path) -> float | None:
    """Tell the loss that a run's newest checkpoint has noted, if it has."""
    folder = find_latest(output)
    if folder is None:
        return None
    try:
        noted = json.loads((folder / "state.json").read_text(encoding="utf-8"))["report"]
        return noted.get("loss")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise unusable(folder, "cannot be read", error) from error


def check_known_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Check settings against a run's newest checkpoint, before anything is written beside it.

    Args:
        output: Folder of the run.
        settings: Those that are known already; the loop checks all of them.

    Raises:
        TrainingError: If they differ.
    """
    folder = find_latest(output)
    if folder is None:
        return
    try:
        found = json.loads((folder / "state.json").read_text(encoding="utf-8"))["settings"]
        others = found.keys() - settings.keys()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise unusable(folder, "cannot be read", error) from error
    check_settings(
        found, settings, place=folder, error=TrainingError, remedy=OTHERWISE, free=others
    )


def write_result(
    stage: Stage, weights: dict[str, Tensor], directory: Path, dtype: torch.dtype
) -> None:
    """Write a stage with trained weights; the folder appears when all of it is on the disk.

    Args:
        stage: Freshly built.
        weights: All that was trained, and the buffers, by name.
        directory: Where to write; absent.
        dtype: Precision to write.

    Raises:
        TrainingError: If it cannot be written.
    """
    report = stage.load_state_dict(weights, strict=False)
    assert not report.unexpected_keys, report.unexpected_keys
    assert not trainable(stage).keys() & set(report.missing_keys), report.missing_keys
    for network in stage.children():  # not the stage's own buffers, which are numbers
        nn.Module.to(network, dtype)  # diffusers' own one warns of what is none of its modules
    try:
        with atomic_folder(directory) as unfinished:
            stage.save(unfinished)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"The result could not be written to {directory}: {reason(error)}. All updates are "
            "done; make room and start the same command again."
        ) from error


def _find_all(output: Path) -> list[Path]:
    return sorted((output / CHECKPOINTS).glob("step-" + "[0-9]" * 8))


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    state = {name: getattr(checkpoint, name) for name in ("step", "settings", "scaler", "report")}
    (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    (folder / "streams.json").write_text(json.dumps(checkpoint.streams), encoding="utf-8")
    moments = {
        f"{name}{SEPARATOR}{moment}": tensor
        for name, moments in checkpoint.optimizer.items()
        for moment, tensor in moments.items()
    }
    tensors = {"weights": checkpoint.weights, "optimizer": moments, "ema": checkpoint.ema}
    for name, named in tensors.items():
        if named or name != "ema":
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in named.items()}
            save_file(plain, folder / f"{name}.safetensors")

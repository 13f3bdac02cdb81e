"""Whether a run may go on from a checkpoint, and what may be another setting than before."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kosmosg.training.checkpoint import Checkpoint, CheckpointFolder, check_identity, read_identity
from kosmosg.training.options import CHANGEABLE, FREE, LoopOptions

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"


def check_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Check settings against a run's newest checkpoint, before anything is written beside it.

    Args:
        output: Folder of the run.
        settings: Those that are known already; the loop checks all of them.

    Raises:
        TrainingError: If they differ.
    """
    folder = CheckpointFolder(output / CHECKPOINTS, keep=1).latest()
    if folder is not None:
        found = read_identity(folder)
        known = {key: value for key, value in found.items() if key in settings}
        check_identity(known, dict(settings), folder)


def is_extended(checkpoint: Checkpoint, options: LoopOptions) -> bool:
    """Tell whether a run was finished, and is asked for more steps."""
    return checkpoint.identity.get("steps") == checkpoint.step < options.steps


def check_resumption(
    checkpoint: Checkpoint,
    wanted: dict[str, Any],
    options: LoopOptions,
    folder: Path,
    *,
    tell: bool = True,
) -> None:
    """Check that a run may go on from a checkpoint; what may change is told in a warning.

    Args:
        checkpoint: Where it goes on from.
        wanted: All settings of the run that is to go on.
        options: Those among them that the loop reads.
        folder: Of the checkpoint.
        tell: Be the one of several processes that warns.

    Raises:
        TrainingError: If other settings differ.
    """
    # What is free now was not always.
    found = {name: value for name, value in checkpoint.identity.items() if name not in FREE}
    if is_extended(checkpoint, options):
        found["steps"] = options.steps
    changed = []
    if checkpoint.step < options.steps:  # behind the last update there is nothing to change
        for name in CHANGEABLE:
            if name in found and found[name] != wanted[name]:
                changed.append(f"{name} was {found[name]!r} and is {wanted[name]!r}")
                found[name] = wanted[name]
    check_identity(found, wanted, folder)
    if changed and tell:
        logger.warning("from update %d on, %s", checkpoint.step + 1, "; ".join(changed))

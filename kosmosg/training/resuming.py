"""Whether a run may begin or go on in a folder, and what may be another setting than before."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kosmosg.checkpoints.lockfile import only_one
from kosmosg.errors import TrainingError
from kosmosg.training.checkpoints import Checkpoint, CheckpointFolder, check_identity, read_identity
from kosmosg.training.disk import reason
from kosmosg.training.options import CHANGEABLE, LoopOptions
from kosmosg.utils.processes import find_processes

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
OWNER = ".run.lock"
_held: set[Path] = set()  # by this process


@contextmanager
def hold_run(output: Path) -> Iterator[None]:
    """Hold the folder of a run for this process, also if it holds it already.

    Two starts of one command would write into each other's checkpoints. Of several processes that
    train together, the main one holds it for all.

    Raises:
        TrainingError: If another process holds it, or it cannot be written.
    """

    def explain(process: str) -> TrainingError:
        return TrainingError(
            f"{output}: another training (process {process}) is at work here. Wait for it or end "
            "it, or name another output folder."
        )

    folder = output.resolve()
    if folder in _held or not find_processes().is_main_process:
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(only_one(output, OWNER, explain))
        except OSError as error:
            raise TrainingError(
                f"{output} cannot be written: {reason(error)}. Mend that, or name another output "
                "folder."
            ) from error
        _held.add(folder)
        held.callback(_held.discard, folder)
        yield


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
        known = {key: value for key, value in read_identity(folder).items() if key in settings}
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
    found = dict(checkpoint.identity)
    if is_extended(checkpoint, options):
        found["steps"] = options.steps
    changed = []
    if checkpoint.step < options.steps:  # behind the last update there is nothing to change
        for name in CHANGEABLE:
            if found[name] != wanted[name]:
                changed.append(f"{name} was {found[name]!r} and is {wanted[name]!r}")
                found[name] = wanted[name]
    check_identity(found, wanted, folder)
    if changed and tell:
        logger.warning("from update %d on, %s", checkpoint.step + 1, "; ".join(changed))

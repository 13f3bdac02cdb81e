"""The result of a run: the trained networks, as the next stage takes them."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from kosmosg.errors import TrainingError
from kosmosg.training.disk import flush, flush_all, reason
from kosmosg.training.stage import Stage, trainable


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
    unfinished = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        stage.save(unfinished)
        flush_all(unfinished)
        unfinished.rename(directory)
        flush(directory.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise TrainingError(
            f"The result could not be written to {directory}: {reason(error)}. All updates are "
            "done; make room and start the same command again."
        ) from error

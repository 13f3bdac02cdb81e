"""Read the authors' checkpoints without running anything that is in them.

A ``.pt`` file is a pickle, and a pickle is a program. torch's restricted unpickler builds tensors
and plain containers alone; every other name that a file mentions (run configurations, optimizers)
stands for an inert object here. Tensors stay mapped to the file.
"""

import logging
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from kosmosg.errors import CheckpointError
from kosmosg.utils.files import reason

logger = logging.getLogger(__name__)

ZIP_MAGIC = b"PK\x03\x04"


class Inert:
    """Stands for an object that a checkpoint mentions and that is never built."""

    def __new__(cls, *args: Any) -> "Inert":
        """Take any arguments, and keep none."""
        return object.__new__(cls)

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_fairseq_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Map the tensors of a checkpoint by their official names.

    Args:
        path: A ``.pt`` file as the authors' trainer saves it (only its ``model`` entry is read),
            a bare state dict saved by ``torch.save``, or the same names in safetensors.

    Returns:
        Tensors that are views of the file: do not change them, and keep the file.

    Raises:
        CheckpointError: If the file is missing, damaged, of another kind, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    with path.open("rb") as file:
        magic = file.read(4)
    content = _read_pickle(path) if magic == ZIP_MAGIC else _read_safetensors(path)
    model = content.get("model", content)
    if not isinstance(model, Mapping):
        raise CheckpointError(f"The 'model' entry of {path} is no dictionary of tensors.")
    tensors = {
        key: value
        for key, value in model.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors. Is it a KOSMOS-G checkpoint?")
    foreign = [str(key) for key in model if key not in tensors]
    if foreign:
        raise CheckpointError(
            f"{path}: these entries of the model are no tensors with names: "
            f"{', '.join(foreign[:10])}. Nothing was converted."
        )
    return tensors


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        names = get_unsafe_globals_in_checkpoint(str(path))
        logger.info("%s mentions what is left out: %s", path, ", ".join(sorted(names)) or "nothing")
        with safe_globals([(Inert, name) for name in names]):
            content = torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:
        # A hostile or broken file can fail in any way; none of them is a program error here. Around
        # its reason torch puts the advice to load the file with all that is in it.
        paragraphs = [part.strip() for part in str(error).split("\n\n")]
        found = paragraphs[1] if len(paragraphs) > 2 else reason(error)
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({found}). Fetch it again if it may be cut "
            "off. Else write its 'model' entry alone, a plain dictionary of tensors, with "
            "torch.save or safetensors."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} is not a checkpoint: it holds {type(content).__name__}.")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, struct.error, ValueError) as error:
        raise CheckpointError(
            f"{path} is neither a checkpoint of torch 1.6 or newer nor safetensors ({error})."
        ) from error

"""Read the authors' checkpoints without running anything that is in them.

A ``.pt`` file is a pickle, and a pickle is a program. The unpickler here knows how to rebuild
tensors and ordered dictionaries; every other name that a file mentions (run configurations,
optimizers, or ``os.system``) becomes an inert placeholder. Tensors stay mapped to the file.
"""

import logging
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch._utils
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kosmosg.errors import CheckpointError

logger = logging.getLogger(__name__)

ZIP_MAGIC = b"PK\x03\x04"
# What torch.save writes for tensors; everything else stays out.
REBUILDERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class Inert:
    """Stands for an object that a checkpoint mentions and that is never built.

    It swallows whatever the pickle does to it: calls, state, items.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        """Take any arguments."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        """Return itself, whatever it is called with."""
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Drop the item."""

    def extend(self, items: Any) -> None:
        """Drop the items."""


class InertUnpickler(pickle.Unpickler):
    """An unpickler that builds tensors and nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Look a name up in the short list above; import nothing."""
        known = REBUILDERS.get((module_name, global_name))
        if known is None:
            logger.info("Left out of the checkpoint: %s.%s", module_name, global_name)
            return type("Inert", (Inert,), {"stands_for": f"{module_name}.{global_name}"})
        return known


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
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
    content = _read_zip(path) if magic == ZIP_MAGIC else _read_safetensors(path)
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


def _read_zip(path: Path) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cut off ({error}). Fetch it again.") from error
    # torch.load would hand such a file to another loader, which does run code.
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointError(f"{path} is a TorchScript program, not a checkpoint. It is not run.")
    try:
        content = torch.load(
            str(path),
            map_location="cpu",
            mmap=True,
            weights_only=False,  # the unpickler below is stricter
            pickle_module=SimpleNamespace(__name__="inert", Unpickler=InertUnpickler),
        )
    except Exception as error:
        # A hostile or broken pickle can fail in any way; none of them is a program error here.
        raise CheckpointError(f"{path} cannot be read ({error}).") from error
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

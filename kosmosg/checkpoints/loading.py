"""Open one component of a weights directory, strictly.

The libraries' own loaders warn about missing, left-over or ill-shaped tensors and go on with
random ones. Here each of them is an error, and so is a value that is not finite.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from kosmosg.errors import WeightsError
from kosmosg.utils.files import reason

Module = TypeVar("Module", bound=nn.Module)
Model = TypeVar("Model", bound=PreTrainedModel)
MODULE_FILE = "model.safetensors"
# Entries of a configuration by which the libraries look for code beside or outside of themselves.
FOREIGN_CODE = {"auto_map", "_attn_implementation", "attn_implementation", "quantization_config"}
REMEDY = "Convert or download these weights again."


def load_component(
    kind: type[Module], directory: Path, *, dtype: torch.dtype, name: str = ""
) -> Module:
    """Open a folder with ``config.json`` and safetensors, in evaluation mode, on the CPU.

    Args:
        kind: Class of transformers or diffusers with ``from_pretrained``.
        directory: The component's folder.
        dtype: Precision to hold it in.
        name: What to call it in errors; the folder's name by default.

    Raises:
        WeightsError: If the folder or a file is missing, cut off, of another model, or not finite.
    """
    name = name or directory.name
    check_config(directory / "config.json", name)
    loader: Any = kind
    try:
        module, report = loader.from_pretrained(
            directory,
            dtype=dtype,
            use_safetensors=True,
            variant=find_variant(directory),
            output_loading_info=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # so that the report below names them
        )
    except Exception as error:
        # The loaders raise OSError, RuntimeError, SafetensorError, KeyError, … for a bad file.
        raise cannot_load(name, directory, error) from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if keys := report.get(what):
            label = what.replace("_keys", " tensors").replace("error_msgs", "errors")
            raise misfit(name, directory, label, keys)
    check_finite(dict(module.named_parameters()), name)
    return module.eval().requires_grad_(False)


def find_variant(folder: Path) -> str | None:
    """Find what the weights of a folder have in their names if there are no plain ones.

    Returns:
        Such as "fp16", for ``model.fp16.safetensors``; the libraries take it as ``variant``.
    """
    pattern = r"[a-z_]+(?:\.([a-z_\d]+))?(?:-\d+-of-\d+)?\.safetensors"
    found = (re.fullmatch(pattern, path.name) for path in folder.glob("*.safetensors"))
    variants = {match[1] for match in found if match}
    return None if None in variants else min(variants, default=None)


def load_model(kind: type[Model], directory: Path, *, dtype: torch.dtype) -> Model:
    """Do what ``load_component`` does, in half the time, for a model without renamed tensors.

    The library's loader compiles a pattern for every tensor. Here tensors stay where the files are
    mapped, unless their precision changes.

    Args:
        kind: A class whose tensors are named in the files as in the module.
        directory: The model's folder; all its safetensors together hold each tensor once.
        dtype: Precision to hold it in.

    Raises:
        WeightsError: If the folder or a file is missing, cut off, of another model, or not finite.
    """
    name = directory.name
    check_config(directory / "config.json", name)
    config_class: Any = kind.config_class
    tensors: dict[str, Tensor] = {}
    twice: set[str] = set()
    try:
        config = config_class.from_pretrained(directory, local_files_only=True)
        with init_empty_weights(include_buffers=False):
            model = kind(config)
        for file in sorted(directory.glob("*.safetensors")):
            found = load_file(file)
            twice |= tensors.keys() & found.keys()
            tensors |= found
    except Exception as error:
        # A configuration of nonsense fails anywhere in the constructors.
        raise cannot_load(name, directory, error) from error
    expected = model.state_dict()
    shared = expected.keys() & tensors.keys()
    differences = {
        "missing tensors": expected.keys() - shared,
        "unexpected tensors": tensors.keys() - shared,
        "tensors in more than one file": twice,  # of which nobody knows which one counts
        "mismatched tensors": [
            f"{key} {_describe(tensors[key])} instead of {_describe(expected[key])}"
            for key in shared
            if _describe(tensors[key]) != _describe(expected[key])
        ],
    }
    for label, keys in differences.items():
        if keys:
            raise misfit(name, directory, label, keys)
    model.load_state_dict(tensors, assign=True)
    nn.Module.to(model, dtype)  # The library's own has no types.
    check_finite(dict(model.named_parameters()), name)
    return model.eval().requires_grad_(False)


def cannot_load(name: str, directory: Path, error: Exception) -> WeightsError:
    """Say why a library did not load a component, in the first line of what it says."""
    return WeightsError(f"{name}: {directory} cannot be loaded ({reason(error)}). {REMEDY}")


def misfit(name: str, directory: Path, label: str, keys: Iterable[object]) -> WeightsError:
    """Say which tensors of a folder do not fit the module."""
    keys = sorted(map(str, keys))
    shown = ", ".join(keys[:5]) + (" …" if len(keys) > 5 else "")
    return WeightsError(f"{name}: {len(keys)} {label} in {directory}: {shown}. {REMEDY}")


def _describe(tensor: Tensor) -> str:
    kind = "numbers" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return f"{list(tensor.shape)} of {kind}"


def check_config(file: Path, name: str) -> dict[str, Any]:
    """Read a configuration, and refuse one that would make a loader run code from elsewhere.

    Raises:
        WeightsError: If the file is missing, no JSON, no object, or has such an entry.
    """
    if not file.is_file():
        raise WeightsError(f"{name}: {file} is missing. {REMEDY}")

    def refuse(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, value in pairs:
            if key in FOREIGN_CODE and value is not None:
                raise WeightsError(f"{name}: {file} asks for '{key}', which is not loaded here.")
        return dict(pairs)

    try:
        config = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=refuse)
    except UnicodeDecodeError as error:
        raise WeightsError(f"{name}: {file} is not UTF-8 text. {REMEDY}") from error
    except json.JSONDecodeError as error:
        raise WeightsError(f"{name}: {file} is no JSON ({error}). {REMEDY}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{name}: {file} holds {config!r:.80}, no settings. {REMEDY}")
    return config


def check_finite(tensors: dict[str, Tensor], name: str) -> None:
    """Refuse weights that hold NaN or infinity: every image would come out black.

    Raises:
        WeightsError: Naming the first such tensor.
    """
    for key, tensor in tensors.items():
        if not is_finite(tensor):
            raise WeightsError(f"{name}: {key} holds values that are not finite. {REMEDY}")


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor is free of NaN and infinity, without a copy of it."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    tensor = tensor.detach()
    # A sum reads memory twice as fast as a search for the bounds, and no finite one has a term
    # that is not. The reverse does not hold: finite terms can add up to infinity.
    return bool(torch.isfinite(tensor.sum())) or all(
        bool(torch.isfinite(bound)) for bound in torch.aminmax(tensor)
    )


def save_module(module: nn.Module, directory: Path) -> None:
    """Write a module that has no ``save_pretrained`` of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in module.state_dict().items()},
        directory / MODULE_FILE,
    )


def load_module(module: Module, directory: Path, *, dtype: torch.dtype) -> Module:
    """Fill a module from what ``save_module`` wrote.

    Raises:
        WeightsError: If the file is missing, cut off, of another model, or not finite.
    """
    file = directory / MODULE_FILE
    try:
        tensors = load_file(file)
        module.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        found = " ".join(str(error).split())
        raise WeightsError(f"{file} cannot be loaded ({found[:300]}). {REMEDY}") from error
    check_finite(tensors, directory.name)
    return module.to(dtype)

"""Pretrained models by folder or Hub id: JSON and safetensors alone, no code, no pickles."""

from pathlib import Path
from typing import Any

import torch

from kosmosg.errors import WeightsError
from kosmosg.utils.devices import choose_device

# Of a repository nothing else is fetched; vocabularies of tokenizers come as text or as .model.
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def find_model(name: str) -> Path:
    """Find the folder of a model, and fetch it if need be.

    Args:
        name: A folder, or a repository of the Hub with or without a revision:
            ``Salesforce/blip2-opt-6.7b@main``.

    Raises:
        WeightsError: If it cannot be had, or has no safetensors.
    """
    folder = Path(name)
    if not folder.is_dir():
        from kosmosg.utils.hub import fetch_repository

        repository, _, revision = name.partition("@")
        folder = fetch_repository(repository, WANTED, revision=revision or None)
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{name} has no safetensors, and files of other kinds are programs that are not run "
            "here. Name a model that has some, or convert it with a tool that you trust."
        )
    return folder


def load_model(kind: Any, name: str, *preprocessors: Any, wide: bool = False) -> tuple[Any, ...]:
    """Open a model strictly, for use, on a GPU in half precision or else on the CPU.

    Args:
        kind: Class of transformers with ``from_pretrained``.
        name: As for ``find_model``.
        preprocessors: Classes of what prepares its inputs.
        wide: It was trained in bfloat16, whose range float16 does not have.

    Returns:
        The network, and what prepares its inputs.

    Raises:
        WeightsError: If it cannot be had, is damaged, or of another class.
    """
    from kosmosg.checkpoints.pretrained import load_preprocessor, load_pretrained

    folder, device = find_model(name), choose_device()
    if device.type == "cpu":
        dtype = torch.float32
    else:
        dtype = torch.bfloat16 if wide and torch.cuda.is_bf16_supported() else torch.float16
    found = [load_pretrained(kind, folder, dtype=dtype, name=name).to(device)]
    for each in preprocessors:
        options = {"backend": "pil"} if "Image" in each.__name__ else {}
        found.append(load_preprocessor(each, folder, name=name, **options))
    return tuple(found)

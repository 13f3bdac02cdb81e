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


def load_model(kind: Any, name: str, folder: Path, dtype: torch.dtype) -> Any:
    """Open a model strictly, for use, on the best device that there is.

    Args:
        kind: Class of transformers with ``from_pretrained``.
        name: What to call it in errors.
        folder: Where it is.
        dtype: Precision to hold it in.

    Raises:
        WeightsError: If it is damaged, or of another class.
    """
    from kosmosg.checkpoints.pretrained import load_pretrained

    return load_pretrained(kind, folder, dtype=dtype, name=name).to(choose_device())


def choose_dtype(wide: bool = False) -> torch.dtype:
    """Return half precision on a GPU, and single on a CPU.

    Args:
        wide: For models that were trained in bfloat16, whose range float16 does not have.
    """
    if choose_device().type == "cpu":
        return torch.float32
    return torch.bfloat16 if wide and torch.cuda.is_bf16_supported() else torch.float16

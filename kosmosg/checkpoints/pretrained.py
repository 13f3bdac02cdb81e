"""Networks of others, by folder or Hub id, for use: no code of theirs, and tensors alone.

What the package's own weights folders hold is opened by ``loading``, which lets nothing be left
over.
"""

from pathlib import Path
from typing import Any

import torch

from kosmosg.checkpoints.loading import check_config, check_finite
from kosmosg.errors import WeightsError
from kosmosg.utils.files import reason


def load_pretrained(
    kind: Any,
    source: str | Path,
    *,
    dtype: torch.dtype,
    name: str = "",
    pickled: bool = False,
    **options: Any,
) -> Any:
    """Open a network of transformers in evaluation mode, on the CPU.

    Tensors that are left over belong to heads of other tasks, or to what older versions saved.

    Args:
        kind: Class with ``from_pretrained``.
        source: Its folder, or its id on the Hub.
        dtype: Precision to hold it in.
        name: What to call it in errors; the source by default.
        pickled: Take ``.bin`` files, too, where there are no safetensors; of them nothing but
            tensors is read.
        **options: Of the class.

    Raises:
        WeightsError: If it cannot be had, is damaged, of another class, or not finite.
    """
    name, local = name or str(source), Path(source).is_dir()
    if local:
        check_config(Path(source) / "config.json", name)
    try:
        network, report = kind.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=None if pickled else True,
            weights_only=True,
            trust_remote_code=False,
            local_files_only=local,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        # transformers and the Hub's client raise OSError, RuntimeError, SafetensorError, ….
        raise _unavailable(name, error) from error
    if missing := sorted({*report["missing_keys"], *report["mismatched_keys"]}, key=str):
        raise WeightsError(
            f"{name} is no {kind.__name__}: it lacks {len(missing)} tensors, such as "
            f"{missing[0]}. Name another model, or fetch this one again."
        )
    check_finite(dict(network.named_parameters()), name)
    return network.eval().requires_grad_(False)


def load_preprocessor(kind: Any, source: str | Path, *, name: str = "", **options: Any) -> Any:
    """Open a tokenizer or an image processor.

    Args:
        kind: Class with ``from_pretrained``.
        source: Its folder, or its id on the Hub.
        name: What to call it in errors; the source by default.
        **options: Of the class.

    Raises:
        WeightsError: If there is none.
    """
    try:
        return kind.from_pretrained(
            source, local_files_only=Path(source).is_dir(), trust_remote_code=False, **options
        )
    except Exception as error:
        # Their loaders raise OSError, ValueError, TypeError and bare Exception.
        raise _unavailable(f"{name or source}: its {kind.__name__}", error) from error


def _unavailable(what: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{what} cannot be loaded ({reason(error)}). Give a folder with the model in transformers' "
        "layout, or its id on the Hub."
    )

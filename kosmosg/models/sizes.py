"""The authors' run configuration, from which a model of any size is built."""

import json
import math
from pathlib import Path
from typing import Any

from kosmosg.errors import CheckpointError
from kosmosg.models.config import FULL_SIZE

# Flags that change the computation; only these values are KOSMOS-G.
REQUIRED_FLAGS: dict[str, Any] = {
    "subln": True,
    "deepnorm": False,
    "no_scale_embedding": False,
    "layernorm_embedding": False,
    "decoder_learned_pos": False,
    "decoder_normalize_before": True,
    "share_decoder_input_output_embed": True,
    "connector": "xconnector",
}
WIDTHS_AND_HEADS = (
    ("decoder.decoder_embed_dim", "decoder.decoder_attention_heads"),
    ("vision.width", "vision.heads"),
    ("aligner.dim", "aligner.heads"),
)


def read_sizes(file: str | Path) -> dict[str, Any]:
    """Read a run configuration in the form of ``config.FULL_SIZE`` from JSON.

    Raises:
        CheckpointError: If it is no JSON, lacks an entry, or describes another architecture.
    """
    try:
        sizes = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON ({error}).") from error
    check_sizes(sizes)
    return sizes


def read_part(file: str | Path, part: str) -> dict[str, Any]:
    """Read the sizes of one part from a JSON file that has those of several.

    Raises:
        CheckpointError: If the file is no JSON or lacks the part.
    """
    try:
        return dict(json.loads(Path(file).read_text(encoding="utf-8"))[part])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file} cannot be used ({error!r}). It must be JSON with an object '{part}'."
        ) from error


def check_sizes(sizes: Any) -> None:
    """Refuse a configuration that is incomplete or not of this architecture.

    Raises:
        CheckpointError: Naming the entry.
    """
    for name, value in FULL_SIZE.items():
        for key, model in value.items() if isinstance(value, dict) else [(None, value)]:
            entry = name if key is None else f"{name}.{key}"
            _check_entry(entry, _look_up(sizes, entry), model)
    for width, heads in WIDTHS_AND_HEADS:
        if _look_up(sizes, width) % _look_up(sizes, heads):
            raise CheckpointError(f"{width} must be a multiple of {heads} in the configuration.")
    if sizes["image_token_length"] != sizes["decoder"]["latent_query_num"]:
        raise CheckpointError("image_token_length must equal decoder.latent_query_num.")
    for flag, wanted in REQUIRED_FLAGS.items():
        if (found := sizes["decoder"].get(flag, wanted)) != wanted:
            raise CheckpointError(
                f"The model configuration has {flag}={found!r}; only {wanted!r} is KOSMOS-G."
            )


def _check_entry(entry: str, found: Any, model: Any) -> None:
    """Compare an entry with that of the full size: the same kind of value, and a sensible one."""
    if found is None:
        raise CheckpointError(
            f"The model configuration lacks '{entry}'. It must have every entry of the authors' "
            "run configuration that decides a size."
        )
    if isinstance(model, float):
        upper = 1.0 if "dropout" in entry else math.inf
        good = type(found) in (int, float) and 0 <= found < upper
    elif isinstance(model, str):
        good = found == model  # the only word is an activation, and the code knows one
    elif isinstance(model, bool):
        good = isinstance(found, bool)
    else:
        good = type(found) is int and found >= 1
    if not good:
        raise CheckpointError(
            f"The model configuration has {entry}={found!r}; the full size has {model!r}."
        )


def _look_up(sizes: Any, entry: str) -> Any:
    for key in entry.split("."):
        sizes = sizes.get(key) if isinstance(sizes, dict) else None
    return sizes

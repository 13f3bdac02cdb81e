"""The authors' run configuration, from which a model of any size is built."""

import json
from pathlib import Path
from typing import Any

from kosmosg.config import FULL_SIZE
from kosmosg.errors import CheckpointError

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


def check_sizes(sizes: Any) -> None:
    """Refuse a configuration that is incomplete or not of this architecture.

    Raises:
        CheckpointError: Naming the entry.
    """
    for name, value in FULL_SIZE.items():
        for key in value if isinstance(value, dict) else [None]:
            entry = name if key is None else f"{name}.{key}"
            if _look_up(sizes, entry) is None:
                raise CheckpointError(
                    f"The model configuration lacks '{entry}'. It must have every entry of the "
                    "authors' run configuration that decides a size."
                )
    for flag, wanted in REQUIRED_FLAGS.items():
        if (found := sizes["decoder"].get(flag, wanted)) != wanted:
            raise CheckpointError(
                f"The model configuration has {flag}={found!r}; only {wanted!r} is KOSMOS-G."
            )


def _look_up(sizes: Any, entry: str) -> Any:
    for key in entry.split("."):
        sizes = sizes.get(key) if isinstance(sizes, dict) else None
    return sizes

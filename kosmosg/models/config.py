"""Every number of the architecture, in one place, and the configuration that gives others.

The sizes are those of the released model (paper, sections 2.1 and 2.2). They are written in the
vocabulary of the authors' run configuration, so that a ``config.json`` describing another size
can be given to ``kosmosg convert --config`` in the same form.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from kosmosg.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class AlignerConfig:
    """Sizes of AlignerNet's encoder half M (paper, section 2.2)."""

    source_dim: int  # width of the language model's features
    dim: int  # width of both stacks and of the condition
    heads: int
    ffn_dim: int
    encoder_layers: int  # first stack, over the language model's features
    decoder_layers: int  # second stack, the learned queries
    position_rows: int  # rows of the learned position table
    queries: int  # length of the condition
    norm_eps: float

    @property
    def max_tokens(self) -> int:
        """Longest sequence that the position table can number."""
        return self.position_rows - FIRST_POSITION_ROW


# fairseq's padding row is 1, and its learned positions start one row behind it.
FIRST_POSITION_ROW = 2

# The released model. "decoder" is the language model, "aligner.encoder_layers" the stack that
# reads its features, "aligner.decoder_layers" the stack of the 77 queries.
FULL_SIZE: dict[str, Any] = {
    "vocab_size": 64007,
    "image_token_length": 64,
    "decoder": {
        "decoder_layers": 24,
        "decoder_embed_dim": 2048,
        "decoder_attention_heads": 32,
        "decoder_ffn_embed_dim": 8192,
        "activation_fn": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "latent_query_num": 64,
        "max_target_positions": 2048,
    },
    "vision": {
        "image_size": 224,
        "patch_size": 14,
        "width": 1024,
        "heads": 16,
        "layers": 24,
        "mlp_ratio": 4.0,
        "quick_gelu": True,
    },
    "aligner": {
        "dim": 768,
        "heads": 12,
        "ffn": 3072,
        "encoder_layers": 12,
        "decoder_layers": 12,
        "position_table": 32768,
        "queries": 77,
    },
    "layer_norm_eps": 1e-5,
}

SD15_REPOSITORY = "stable-diffusion-v1-5/stable-diffusion-v1-5"

Dtype = Literal["float16", "bfloat16", "float32"]  # of weights folders
DTYPES: tuple[Dtype, ...] = get_args(Dtype)

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
    """Read a run configuration in the form of ``FULL_SIZE`` from JSON.

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

"""Every number of the architecture, in one place.

The sizes are those of the released model (paper, sections 2.1 and 2.2). They are written in the
vocabulary of the authors' run configuration, so that a ``config.json`` describing another size
can be given to ``kosmosg convert --config`` in the same form.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args


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

"""One table from the authors' parameter names to ours, read in both directions.

``#`` stands for a layer number, ``*`` for any rest of a name. The first row that fits decides.
"""

import re
from dataclasses import dataclass
from functools import cache

KOSMOSG, UNET, VAE = "kosmosg", "unet", "vae"
RECONSTRUCTION = "reconstruction"  # AlignerNet's half N, in checkpoints of stage 2 only

_TEXT = "kosmos2.text_model.model"
_VISION = "kosmos2.vision_model.model"


def _stack(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Rows of one stack of AlignerNet."""
    layer, our_layer = f"{theirs}.layers.#", f"{ours}.layers.#"
    return [
        (f"{layer}.self_attn.inner_attn_ln.*", f"{our_layer}.self_attention.inner_norm.*"),
        (f"{layer}.self_attn.*", f"{our_layer}.self_attention.*"),
        (f"{layer}.self_attn_layer_norm.*", f"{our_layer}.self_attention_norm.*"),
        (f"{layer}.encoder_attn.*", f"{our_layer}.cross_attention.*"),
        (f"{layer}.encoder_attn_layer_norm.*", f"{our_layer}.cross_attention_norm.*"),
        (f"{layer}.ffn.fc1.*", f"{our_layer}.feed_forward.up.*"),
        (f"{layer}.ffn.ffn_layernorm.*", f"{our_layer}.feed_forward.norm.*"),
        (f"{layer}.ffn.fc2.*", f"{our_layer}.feed_forward.down.*"),
        (f"{layer}.final_layer_norm.*", f"{our_layer}.feed_forward_norm.*"),
        (f"{theirs}.layer_norm.*", f"{ours}.norm.*"),
    ]


_RESBLOCK, _BLOCK = "img_model.visual.transformer.resblocks.#", f"{_VISION}.encoder.layers.#"

TABLE: list[tuple[str, str, str]] = [
    *(
        (theirs, KOSMOSG, ours)
        for theirs, ours in [
            ("gpt_model.decoder.*", f"{_TEXT}.*"),
            ("img_model.visual.class_embedding", f"{_VISION}.embeddings.class_embedding"),
            (
                "img_model.visual.positional_embedding",
                f"{_VISION}.embeddings.position_embedding.weight",
            ),
            ("img_model.visual.conv1.weight", f"{_VISION}.embeddings.patch_embedding.weight"),
            ("img_model.visual.ln_pre.*", f"{_VISION}.pre_layrnorm.*"),  # sic, transformers' name
            ("img_model.visual.ln_post.*", f"{_VISION}.post_layernorm.*"),
            (f"{_RESBLOCK}.ts_attn.*", f"{_BLOCK}.self_attn.*"),
            (f"{_RESBLOCK}.ln_1.*", f"{_BLOCK}.layer_norm1.*"),
            (f"{_RESBLOCK}.ln_2.*", f"{_BLOCK}.layer_norm2.*"),
            (f"{_RESBLOCK}.mlp.c_fc.*", f"{_BLOCK}.mlp.fc1.*"),
            (f"{_RESBLOCK}.mlp.c_proj.*", f"{_BLOCK}.mlp.fc2.*"),
            ("img_connector.*", "kosmos2.image_to_text_projection.*"),
            ("aligner.encoder_query", "aligner.queries"),
            ("aligner.encoder_proj.embed_tokens.*", "aligner.input_projection.*"),
            ("aligner.encoder_proj.embed_positions.*", "aligner.positions.*"),
            *_stack("aligner.encoder_proj", "aligner.encoder"),
            *_stack("aligner.encoder", "aligner.decoder"),
        ]
    ),
    *(
        (theirs, RECONSTRUCTION, ours)
        for theirs, ours in [
            ("aligner.decoder_query", "queries"),
            ("aligner.decoder_proj.embed_positions.*", "positions.*"),
            ("aligner.decoder_proj.output_projection.*", "output_projection.*"),
            *_stack("aligner.decoder", "decoder"),
            *_stack("aligner.decoder_proj", "encoder"),
        ]
    ),
    ("diffusion_unet.unet.*", UNET, "*"),
    ("vae.vae.*", VAE, "*"),
]

# Older names of the VAE's attention, read but never written.
ALIASES: list[tuple[str, str, str]] = [
    ("vae.vae.*.attentions.#.query.*", VAE, "*.attentions.#.to_q.*"),
    ("vae.vae.*.attentions.#.key.*", VAE, "*.attentions.#.to_k.*"),
    ("vae.vae.*.attentions.#.value.*", VAE, "*.attentions.#.to_v.*"),
    ("vae.vae.*.attentions.#.proj_attn.*", VAE, "*.attentions.#.to_out.0.*"),
]

# Entries that no output depends on, or that come from elsewhere, and why.
DEAD: list[tuple[str, str]] = [
    ("gpt_model.decoder.embed_positions._float_tensor", "buffer without influence"),
    ("gpt_model.decoder.self_attn_sope.scale", "buffer of the unused xPos"),
    ("gpt_model.decoder.output_projection.weight", "tied to the word embedding"),
    (f"{_RESBLOCK}.attn.*", "unused duplicate of the attention"),
    ("aligner.clip_encoder.*", "Stable Diffusion's own text encoder, stage 2 only"),
]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a parameter belongs: a component of the weights folder and a name in it."""

    component: str
    name: str


def find_target(key: str) -> Target | None:
    """Translate an official name; ``None`` if no row fits."""
    for theirs, component, ours in (*ALIASES, *TABLE):
        if (name := _translate(key, theirs, ours)) is not None:
            return Target(component=component, name=name)
    return None


def official_key(component: str, name: str) -> str | None:
    """Translate back; ``None`` if no row fits."""
    for theirs, row_component, ours in TABLE:
        if row_component == component and (key := _translate(name, ours, theirs)) is not None:
            return key
    return None


def why_dead(key: str) -> str | None:
    """Say why a key is left out, or ``None`` if it is alive or unknown."""
    for pattern, reason in DEAD:
        if _regex(pattern).fullmatch(key):
            return reason
    return None


def _translate(key: str, pattern: str, template: str) -> str | None:
    match = _regex(pattern).fullmatch(key)
    if match is None:
        return None
    parts = iter(match.groups())
    return re.sub(r"[#*]", lambda _: next(parts), template)


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", r"(.+)"))

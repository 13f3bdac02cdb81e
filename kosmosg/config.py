"""Every number of the architecture and every default of a request, in one place.

The sizes are those of the released model (paper, sections 2.1 and 2.2). They are written in the
vocabulary of the authors' run configuration, so that a ``config.json`` describing another size
can be given to ``kosmosg convert --config`` in the same form.
"""

from dataclasses import dataclass
from typing import Any


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

# Stable Diffusion v1.5, as far as it differs from the defaults of diffusers' classes.
SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
}
SD15_VAE: dict[str, Any] = {
    "sample_size": 512,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SD15_SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,  # unknown to PNDM, but DDIM is derived from these settings
}
SD15_REPOSITORY = "stable-diffusion-v1-5/stable-diffusion-v1-5"

# How stage 3 varies its samples (paper, section 2.3, and the authors' scripts): probability that an
# entity keeps its background, that a sample's entities lose their words, an edit its caption.
KEEP_BACKGROUND = DROP_TEXT = DROP_CAPTION = 0.5

# Normalisation of CLIP's input, per channel in RGB order, for pixels in [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

DEFAULT_STEPS = 50
SAMPLER_NAMES = (
    *("DPMSolverMultistep", "DDIM", "PNDM", "UniPC"),
    *("Euler", "EulerAncestral", "KarrasDPM", "LCM"),
)
DEFAULT_SAMPLER = SAMPLER_NAMES[0]
DEFAULT_GUIDANCE = 6.0
MAX_SEED = 2**32 - 1
LORA_SCALE = 1.0
CONTROL_SCALE = 1.0
PROMPT_STRENGTH = 0.8
CONTROL_TYPES = (
    *("canny", "depth", "openpose", "scribble", "softedge", "segmentation"),
    *("normal", "lineart", "lineart_anime", "mlsd", "shuffle", "ip2p"),
)

# The paper's evaluation (section 4.2). Batches are those of the authors' scripts, within which
# noises differ.
DREAMBENCH_STEPS, DREAMBENCH_GUIDANCE, DREAMBENCH_SAMPLER = 100, 7.5, SAMPLER_NAMES[0]
DREAMBENCH_PICTURES, DREAMBENCH_PROMPTS_PER_BATCH = 4, 5  # pictures of each prompt
COCO_STEPS, COCO_GUIDANCE, COCO_SAMPLER = 250, 3.0, SAMPLER_NAMES[1]
COCO_CAPTIONS, COCO_BATCH = 30_000, 16
COCO_PHOTOGRAPHS = 40_504  # of val2014
DINO_REPOSITORY, CLIP_REPOSITORY = "facebook/dino-vits16", "openai/clip-vit-base-patch32"
PROTOCOL_NAMES = ("paper", "clean")

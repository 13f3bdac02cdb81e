"""KOSMOS-G = the multimodal language model of KOSMOS-1/2 + AlignerNet (paper, figure 2).

The language model, its CLIP tower and the one-attention resampler are transformers' Kosmos-2: the
released KOSMOS-G runs exactly that model (its xPos flag has no effect). What this file adds is the
composition. The output matrix is never built: a condition needs features, not logits.
"""

from dataclasses import asdict
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Kosmos2Config, Kosmos2Model, PreTrainedConfig, PreTrainedModel

from kosmosg.errors import PromptError
from kosmosg.models.aligner import AlignerNet
from kosmosg.models.config import AlignerConfig
from kosmosg.prompts.batch import Batch
from kosmosg.prompts.tokenizer import BOS_ID


class KosmosGConfig(PreTrainedConfig):
    """Sizes of both parts, and the training stage that the weights come from."""

    model_type = "kosmos-g"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"kosmos2": Kosmos2Config}

    kosmos2: Any = None  # sizes of the language model; becomes a Kosmos2Config
    aligner: Any = None  # sizes of AlignerNet, as a dictionary
    stage: str = "instruct"  # the last stage trained: "lm", "align" or "instruct"

    @property
    def aligner_config(self) -> AlignerConfig:
        """AlignerNet's sizes."""
        return AlignerConfig(**self.aligner)

    @property
    def image_slots(self) -> int:
        """Vectors per image."""
        return self.kosmos2.latent_query_num

    @property
    def image_size(self) -> int:
        """Side of the square images that the vision tower takes, in pixels."""
        return self.kosmos2.vision_config.image_size

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return self.kosmos2.text_config.vocab_size

    @property
    def max_tokens(self) -> int:
        """Longest prompt that AlignerNet takes."""
        return self.aligner_config.max_tokens

    @classmethod
    def from_sizes(cls, sizes: dict[str, Any], stage: str = "instruct") -> "KosmosGConfig":
        """Translate the authors' run configuration (see ``config.FULL_SIZE``)."""
        decoder, vision, aligner = sizes["decoder"], sizes["vision"], sizes["aligner"]
        text_config = {
            "vocab_size": sizes["vocab_size"],
            "layers": decoder["decoder_layers"],
            "embed_dim": decoder["decoder_embed_dim"],
            "attention_heads": decoder["decoder_attention_heads"],
            "ffn_dim": decoder["decoder_ffn_embed_dim"],
            "activation_function": decoder["activation_fn"],
            "dropout": decoder["dropout"],
            "attention_dropout": decoder["attention_dropout"],
            "activation_dropout": decoder["activation_dropout"],
            "max_position_embeddings": decoder["max_target_positions"],
            "layer_norm_eps": sizes["layer_norm_eps"],
            "use_cache": False,
        }
        vision_config = {
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision["mlp_ratio"]),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["heads"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": "quick_gelu" if vision["quick_gelu"] else "gelu",
            "layer_norm_eps": sizes["layer_norm_eps"],
        }
        aligner_config = AlignerConfig(
            source_dim=decoder["decoder_embed_dim"],
            dim=aligner["dim"],
            heads=aligner["heads"],
            ffn_dim=aligner["ffn"],
            encoder_layers=aligner["encoder_layers"],
            decoder_layers=aligner["decoder_layers"],
            position_rows=aligner["position_table"],
            queries=aligner["queries"],
            norm_eps=sizes["layer_norm_eps"],
        )
        kosmos2 = Kosmos2Config(
            text_config=text_config,
            vision_config=vision_config,
            latent_query_num=decoder["latent_query_num"],
        )
        return cls(kosmos2=kosmos2.to_dict(), aligner=asdict(aligner_config), stage=stage)


class KosmosG(PreTrainedModel):
    """Prompts with images → conditions for a Stable Diffusion v1.5 U-Net."""

    config_class = KosmosGConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules: ClassVar = ["Kosmos2VisionEncoderLayer", "Kosmos2TextBlock", "Layer"]

    def __init__(self, config: KosmosGConfig):
        super().__init__(config)
        self.kosmos2 = Kosmos2Model(config.kosmos2)
        self.aligner = AlignerNet(config.aligner_config)
        for module in self.aligner.modules():
            # It has drawn its own initial values; transformers would draw others.
            module._is_hf_initialized = True  # pyright: ignore[reportArgumentType]
        self.post_init()

    @property
    def image_slots(self) -> int:
        """Vectors per image."""
        return self.config.image_slots

    @property
    def image_size(self) -> int:
        """Side of the square images that the vision tower takes, in pixels."""
        return self.config.image_size

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""
        return self.config.vocabulary_size

    def features(self, batch: Batch) -> Float[Tensor, "batch tokens width"]:
        """Run the multimodal language model up to its final norm.

        Raises:
            PromptError: If a prompt is longer than AlignerNet's position table.
        """
        tokens = batch.ids.shape[1]
        if tokens > self.aligner.max_tokens:
            raise PromptError(
                f"The prompt is {tokens} tokens long (an image counts {self.image_slots + 2}), and "
                f"this model takes at most {self.aligner.max_tokens}. Shorten the prompt."
            )
        if batch.pixels is None:
            output = self.kosmos2.text_model(input_ids=batch.ids, use_cache=False)
        elif batch.image_weights is None:
            output = self.kosmos2(
                pixel_values=batch.pixels,
                input_ids=batch.ids,
                image_embeds_position_mask=batch.image_mask,
                use_cache=False,
            )
        else:
            output = self.kosmos2(
                image_embeds=self._weighted_images(batch.pixels, batch.image_weights),
                input_ids=batch.ids,
                image_embeds_position_mask=batch.image_mask,
                use_cache=False,
            )
        return output.last_hidden_state

    def _weighted_images(
        self, pixels: Float[Tensor, "images 3 size size"], weights: Float[Tensor, "images"]
    ) -> Float[Tensor, "images slots width"]:
        """Move the vectors of each image towards those of an even grey one, or away from them.

        Scaling them would do nothing: the language model normalises whatever stands in a slot.
        """
        grey = torch.zeros_like(pixels[:1])  # CLIP's mean colour
        found: Any = self.kosmos2.get_image_features(torch.cat([pixels, grey]))
        images, nothing = found.pooler_output[:-1], found.pooler_output[-1:]
        return nothing + weights[:, None, None] * (images - nothing)

    def forward(self, batch: Batch) -> Float[Tensor, "batch queries dim"]:
        """Compute the condition of every prompt, ``(batch, 77, 768)`` at full size."""
        return self.aligner(self.features(batch), batch.padding_mask)

    def null_condition(self) -> Float[Tensor, "1 queries dim"]:
        """Compute the null condition, which guidance leads away from: the start symbol's alone."""
        ids = torch.full((1, 1), BOS_ID, device=self.device)
        return self(Batch(ids=ids, image_mask=torch.zeros_like(ids, dtype=torch.bool), pixels=None))

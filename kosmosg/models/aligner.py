"""AlignerNet: the language model's features → what Stable Diffusion expects from CLIP.

Paper, section 2.2 and figure 3b. In the encoder M, one bidirectional stack reads the features and
a second one lets 77 learned queries attend to them. The decoder N, which only the aligning stage
needs, goes back: learned queries attend to the 77, and a last stack smooths the result. All are
pre-norm MAGNETO stacks ("sub-LN"): a second LayerNorm stands before the output projection of
self-attention and of the feed-forward network. They also begin as MAGNETO does (arXiv 2210.06423,
figure 2); with smaller values attention looks everywhere alike for a long time.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from kosmosg.models.config import FIRST_POSITION_ROW, AlignerConfig


class AlignerNet(nn.Module):
    """The encoder half M of AlignerNet."""

    def __init__(self, config: AlignerConfig):
        super().__init__()
        self.config = config
        self.input_projection = nn.Linear(config.source_dim, config.dim)
        self.positions = nn.Embedding(config.position_rows, config.dim)
        self.encoder = Stack(config, config.encoder_layers, cross_attention=False)
        self.queries = nn.Parameter(torch.randn(config.queries, config.dim) * config.dim**-0.5)
        self.decoder = Stack(config, config.decoder_layers, cross_attention=True)
        draw_linear(self.input_projection)
        nn.init.normal_(self.positions.weight, std=config.dim**-0.5)

    @property
    def max_tokens(self) -> int:
        """Longest sequence that the position table can number."""
        return self.config.max_tokens

    def encode(
        self,
        features: Float[Tensor, "batch tokens source"],
        padding_mask: Bool[Tensor, "batch tokens"],
    ) -> Float[Tensor, "batch tokens dim"]:
        """Read the features. Values at padded positions mean nothing."""
        tokens = features.shape[1]
        # NOTE(reference): positions are numbered from row 2; rows 0 and 1 are never used.
        rows = torch.arange(tokens, device=features.device) + FIRST_POSITION_ROW
        hidden = self.input_projection(features) + self.positions(rows)
        hidden = hidden.masked_fill(padding_mask[..., None], 0.0)
        return self.encoder(hidden, attend=attendable(padding_mask))

    def forward(
        self,
        features: Float[Tensor, "batch tokens source"],
        padding_mask: Bool[Tensor, "batch tokens"],
    ) -> Float[Tensor, "batch queries dim"]:
        """Turn features into the U-Net's ``encoder_hidden_states``.

        Args:
            features: Output of the language model's final norm, at every position.
            padding_mask: True at padded positions.
        """
        memory = self.encode(features, padding_mask)
        queries = self.queries.expand(len(features), -1, -1)
        return self.decoder(queries, memory=memory, attend_memory=attendable(padding_mask))


class Reconstruction(nn.Module):
    """The decoder half N: from the condition back to the language model's features."""

    def __init__(self, config: AlignerConfig):
        super().__init__()
        self.config = config
        queries = torch.randn(config.position_rows, config.dim) * config.dim**-0.5
        self.queries = nn.Parameter(queries)
        self.decoder = Stack(config, config.decoder_layers, cross_attention=True)
        self.positions = nn.Embedding(config.position_rows, config.dim)
        self.encoder = Stack(config, config.encoder_layers, cross_attention=False)
        self.output_projection = nn.Linear(config.dim, config.source_dim)
        draw_linear(self.output_projection)
        nn.init.normal_(self.positions.weight, std=config.dim**-0.5)

    def forward(
        self,
        condition: Float[Tensor, "batch queries dim"],
        tokens: int,
        padding_mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens source"]:
        """Reconstruct the features of ``tokens`` positions.

        Args:
            condition: What M made of them.
            tokens: Length of the longest sequence.
            padding_mask: True at positions that the others do not look at; by default, as in
                training with the authors' code, all look at all.
        """
        attend = None if padding_mask is None else attendable(padding_mask)
        queries = self.queries[:tokens].expand(len(condition), -1, -1)
        hidden = self.decoder(queries, attend, memory=condition)
        rows = torch.arange(tokens, device=condition.device) + FIRST_POSITION_ROW
        return self.output_projection(self.encoder(hidden + self.positions(rows), attend))


class Stack(nn.Module):
    """Pre-norm layers and a final norm."""

    def __init__(self, config: AlignerConfig, layers: int, *, cross_attention: bool):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, cross_attention) for _ in range(layers))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self._draw()

    def forward(
        self,
        hidden: Float[Tensor, "batch length dim"],
        attend: Bool[Tensor, "batch 1 1 length"] | None = None,
        memory: Float[Tensor, "batch tokens dim"] | None = None,
        attend_memory: Bool[Tensor, "batch 1 1 tokens"] | None = None,
    ) -> Float[Tensor, "batch length dim"]:
        """Apply all layers; the masks are true where attention may look."""
        for layer in self.layers:
            hidden = layer(hidden, attend, memory, attend_memory)
        return self.norm(hidden)

    def _draw(self) -> None:
        """Draw initial values: all but queries and keys grow with the number of layers."""
        gain = math.sqrt(math.log(2 * len(self.layers)))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                draw_linear(module, 1.0 if name.endswith(("q_proj", "k_proj")) else gain)


class Layer(GradientCheckpointingLayer):
    """Self-attention, cross-attention if there is a memory, feed-forward; each with residual."""

    def __init__(self, config: AlignerConfig, cross_attention: bool):
        super().__init__()
        dim, eps = config.dim, config.norm_eps
        self.self_attention_norm = nn.LayerNorm(dim, eps=eps)
        self.self_attention = Attention(config, inner_norm=True)
        if cross_attention:
            self.cross_attention_norm = nn.LayerNorm(dim, eps=eps)
            # NOTE(reference): no inner norm in cross-attention.
            self.cross_attention = Attention(config, inner_norm=False)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        hidden: Float[Tensor, "batch length dim"],
        attend: Bool[Tensor, "batch 1 1 length"] | None,
        memory: Float[Tensor, "batch tokens dim"] | None,
        attend_memory: Bool[Tensor, "batch 1 1 tokens"] | None,
    ) -> Float[Tensor, "batch length dim"]:
        """One layer."""
        normed = self.self_attention_norm(hidden)
        hidden = hidden + self.self_attention(normed, normed, attend)
        if memory is not None:
            normed = self.cross_attention_norm(hidden)
            hidden = hidden + self.cross_attention(normed, memory, attend_memory)
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))


class Attention(nn.Module):
    """Multi-head attention with biases everywhere."""

    def __init__(self, config: AlignerConfig, *, inner_norm: bool):
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.dim, config.dim)
        self.k_proj = nn.Linear(config.dim, config.dim)
        self.v_proj = nn.Linear(config.dim, config.dim)
        self.inner_norm = (
            nn.LayerNorm(config.dim, eps=config.norm_eps) if inner_norm else nn.Identity()
        )
        self.out_proj = nn.Linear(config.dim, config.dim)

    def forward(
        self,
        queries: Float[Tensor, "batch length dim"],
        keys: Float[Tensor, "batch tokens dim"],
        attend: Bool[Tensor, "batch 1 1 tokens"] | None,
    ) -> Float[Tensor, "batch length dim"]:
        """Attend from queries to keys; the keys are the values too."""
        q, k, v = (
            rearrange(x, "batch length (heads d) -> batch heads length d", heads=self.heads)
            for x in (self.q_proj(queries), self.k_proj(keys), self.v_proj(keys))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend)
        mixed = rearrange(mixed, "batch heads length d -> batch length (heads d)")
        return self.out_proj(self.inner_norm(mixed))


class FeedForward(nn.Module):
    """Two linear layers with exact GELU and, behind it, the sub-LN norm."""

    def __init__(self, config: AlignerConfig):
        super().__init__()
        self.up = nn.Linear(config.dim, config.ffn_dim)
        self.norm = nn.LayerNorm(config.ffn_dim, eps=config.norm_eps)
        self.down = nn.Linear(config.ffn_dim, config.dim)

    def forward(self, hidden: Float[Tensor, "batch length dim"]) -> Float[Tensor, "..."]:
        """Widen, activate, normalise, narrow."""
        return self.down(self.norm(F.gelu(self.up(hidden))))


def draw_linear(layer: nn.Linear, gain: float = 1.0) -> None:
    """Draw initial weights that keep the size of what comes, times a gain."""
    if layer.weight.is_meta:
        return  # Weights are about to be loaded: there is nothing to draw.
    nn.init.xavier_normal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)


def attendable(
    padding_mask: Bool[Tensor, "batch tokens"],
) -> Bool[Tensor, "batch 1 1 tokens"]:
    """Turn a padding mask into an attention mask over keys, for all heads and queries."""
    return ~padding_mask[:, None, None, :]

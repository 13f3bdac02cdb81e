"""The CLIP that a model from nothing needs; the full size takes OpenAI's.

Its image tower becomes the eye of the language model, its text encoder the U-Net's condition and
the aligning stage's target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from kosmosg.checkpoints.stable_diffusion import encode_captions
from kosmosg.training.stage import Stage
from kosmosg.training.stages.common import SeededSample

MAX_LOGIT_SCALE = 4.6052  # log 100, as CLIP was trained
WORDS = 0.2  # weight of the loss of words
RARE = -9.0  # logit of a word in one place before anything is known; most are not there
POSITIONS = 0.5  # amplitude of the sines, beside vectors of unit size after the first norm


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Images and their captions."""

    pixels: Float[Tensor, "batch 3 size size"]
    ids: Int64[Tensor, "batch length"]
    attended: Int64[Tensor, "batch length"]

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.pixels)

    def to(self, device: torch.device) -> "PairBatch":
        """Move everything."""
        return replace(
            self,
            pixels=self.pixels.to(device),
            ids=self.ids.to(device),
            attended=self.attended.to(device),
        )


class ClipStage(Stage):
    """Trains a ``CLIPModel`` to tell which caption belongs to which image of the batch.

    Every process compares within its own part of a batch only. Batches are small, and few captions
    in them differ in one word alone; so the patches also learn, by a layer that is thrown away,
    which words stand in the image's caption. A word is there if one of the patches sees it.
    """

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer):
        super().__init__()
        self.clip = clip
        self.clip.requires_grad_(True)
        vision: Any = clip.config.vision_config
        self.words = nn.Linear(vision.hidden_size, len(tokenizer))
        nn.init.constant_(self.words.bias, RARE)
        self._tokenizer = tokenizer

    def set_modes(self) -> None:
        """Train everything."""
        self.train()

    def collate(self, samples: Sequence[SeededSample]) -> PairBatch:
        """Stack the images and pad the captions."""
        pixels = torch.from_numpy(np.stack([sample.prepared.pixels[0] for sample in samples]))
        ids, attended = encode_captions(
            self._tokenizer, [sample.prepared.caption for sample in samples]
        )
        return PairBatch(pixels=pixels.float(), ids=ids, attended=attended)

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        """Compute the contrastive loss, and how often the right caption wins."""
        output = self.clip(
            input_ids=batch.ids, attention_mask=batch.attended, pixel_values=batch.pixels
        )
        logits = output.logits_per_image.float()
        own = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        right = (logits.argmax(dim=1) == own).float().mean()
        words = self._find_words(output.vision_model_output.last_hidden_state, batch.ids)
        return {"loss": loss + WORDS * words, "contrast": loss, "words": words, "right": right}

    def _find_words(
        self, states: Float[Tensor, "batch tokens width"], ids: Int64[Tensor, "batch length"]
    ) -> Float[Tensor, ""]:
        """Compute the loss of a yes or no for every word, from the patches without the class."""
        patches = states[:, 1:].float()
        logits = self.words(F.layer_norm(patches, patches.shape[-1:])).float().logsumexp(dim=1)
        there = torch.zeros_like(logits).scatter_(1, ids, 1.0)
        losses = F.binary_cross_entropy_with_logits(logits, there, reduction="none")
        return losses.sum(dim=1).mean()

    def save(self, directory: Path) -> None:
        """Write the whole model, its text encoder on its own, and the tokenizer."""
        self.clip.save_pretrained(directory / "clip")
        self._tokenizer.save_pretrained(directory / "clip_tokenizer")


def begin_with_sines(clip: CLIPModel) -> None:
    """Let the image tower's positions begin with sines and cosines of both coordinates.

    They stay trainable. Drawn at random, they are faint beside what the patches hold, and a small
    tower takes long to learn where things are, and thus shapes (compare arXiv 2205.01580).
    """
    embeddings: Any = clip.vision_model.embeddings
    sizes: Any = clip.config.vision_config
    side, quarter = sizes.image_size // sizes.patch_size, sizes.hidden_size // 4
    frequencies = 2.0 * 20.0 ** (-torch.arange(quarter) / quarter)
    angles = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    places = torch.cat([repeat(waves, "y c -> (y x) c", x=side), waves.repeat(side, 1)], dim=1)
    with torch.no_grad():
        weight = embeddings.position_embedding.weight
        weight.zero_()  # the class has no place, nor has what a width that is no multiple leaves
        weight[1:, : 4 * quarter] = POSITIONS * places

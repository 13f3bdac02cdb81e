"""Prompts with what the three stages need beside them, as one batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.batch import Batch, collate
from kosmosg.training.stages.examples import Example


@dataclass(frozen=True, kw_only=True)
class PromptBatch:
    """A batch of prompts and their stage's targets.

    Attributes:
        prompts: As the language model reads them.
        captions: CLIP's token ids of the captions (stage 2), or nothing.
        targets: Pictures to be drawn, in [-1, 1] (stage 3), or nothing.
        seeds: One per prompt, of all chance.
    """

    prompts: Batch
    captions: Int64[Tensor, "batch length"] | None
    targets: Float[Tensor, "batch 3 size size"] | None
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        """Count the prompts."""
        return len(self.seeds)

    def to(self, device: torch.device) -> "PromptBatch":
        """Move everything."""
        return replace(
            self,
            prompts=self.prompts.to(device, torch.float32),
            captions=None if self.captions is None else self.captions.to(device),
            targets=None if self.targets is None else self.targets.to(device),
        )


def collate_prompts(
    samples: Sequence[Example], captions: Int64[Tensor, "batch length"] | None = None
) -> PromptBatch:
    """Pad prompts, stack their pictures and their targets."""
    prepared = [sample.prepared for sample in samples]
    targets = [each.target for each in prepared if each.target is not None]
    return PromptBatch(
        prompts=collate(
            [each.prompt for each in prepared],
            [pixels.astype(np.float32) for each in prepared for pixels in each.pixels],
        ),
        captions=captions,
        targets=torch.from_numpy(np.stack(targets)).float() if targets else None,
        seeds=tuple(sample.seed for sample in samples),
    )


def train_language_model(kosmosg: KosmosG) -> None:
    """Mark what stages 1 and 3 train of the language model (paper, section 2.1).

    That is the language model with its embeddings, the resampler, and of the vision tower the
    last block and, as in the authors' code, the final norm.
    """
    kosmos2 = kosmosg.kosmos2
    kosmos2.requires_grad_(True)
    vision = kosmos2.vision_model.model
    vision.requires_grad_(False)
    vision.encoder.layers[-1].requires_grad_(True)
    vision.post_layernorm.requires_grad_(True)


def read_prompts(kosmosg: KosmosG, batch: Batch) -> Float[Tensor, "batch tokens width"]:
    """Compute the language model's features, always by way of the vision tower.

    Processes average the gradients of all parameters, and those of sharded networks wait for each
    other in every module. So all must go the same way in each update: where a batch has no
    picture, a blank one is looked at, and nothing of it taken.
    """
    if batch.pixels is not None:
        return kosmosg.features(batch)
    size = kosmosg.image_size
    blank = torch.zeros(1, 3, size, size, device=batch.ids.device)
    seen: Any = kosmosg.kosmos2.get_image_features(blank)
    output = kosmosg.kosmos2.text_model(
        input_ids=batch.ids,
        image_embeds=seen.pooler_output[:0],
        image_embeds_position_mask=batch.image_mask,
        use_cache=False,
    )
    return output.last_hidden_state

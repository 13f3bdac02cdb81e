"""Several prompts → one right-padded batch of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from kosmosg.prompts.tokenizer import PAD_ID, TokenizedPrompt


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Prompts of different lengths and all their images.

    Attributes:
        ids: Token ids, padded on the right: the language model has no padding mask and relies on
            being causal.
        image_mask: True at the slots that an image vector replaces.
        pixels: Normalised images of all prompts in order of appearance, or none at all.
        image_weights: How much of each image counts, if not all of all.
    """

    ids: Int64[Tensor, "batch tokens"]
    image_mask: Bool[Tensor, "batch tokens"]
    pixels: Float[Tensor, "images 3 size size"] | None
    image_weights: Float[Tensor, "images"] | None = None

    @property
    def padding_mask(self) -> Bool[Tensor, "batch tokens"]:
        """True at the padded positions."""
        return self.ids == PAD_ID

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Batch":
        """Move everything to a device, and the pixels to a precision if one is named."""
        pixels, weights = self.pixels, self.image_weights
        return replace(
            self,
            ids=self.ids.to(device),
            image_mask=self.image_mask.to(device),
            pixels=None if pixels is None else pixels.to(device=device, dtype=dtype),
            image_weights=None if weights is None else weights.to(device=device, dtype=dtype),
        )


def collate(prompts: Sequence[TokenizedPrompt], pixels: Sequence[np.ndarray] = ()) -> Batch:
    """Pad prompts on the right and stack the images.

    Args:
        prompts: At least one.
        pixels: One ``(3, size, size)`` array per image, in order of appearance over all prompts.
    """
    tokens = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), tokens), PAD_ID, dtype=torch.int64)
    image_mask = torch.zeros((len(prompts), tokens), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
        image_mask[row, : len(prompt.image_mask)] = torch.tensor(prompt.image_mask)
    stacked = torch.from_numpy(np.stack(pixels)) if len(pixels) else None
    return Batch(ids=ids, image_mask=image_mask, pixels=stacked)

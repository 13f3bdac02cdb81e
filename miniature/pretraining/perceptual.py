"""How different two images are to an eye that knows the world, and not pixel by pixel."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModel

from kosmosg.prompts.images import CLIP_MEAN, CLIP_STD


class PerceptualDistance(nn.Module):
    """Compares what the layers of a frozen CLIP image tower make of two images.

    As in LPIPS, vectors are brought to unit length and the squared distances averaged, over
    places and layers. Both images are moved by the same few pixels first, by chance: otherwise
    errors along the edges of CLIP's patches would be seen less than others.
    """

    def __init__(self, tower: CLIPVisionModel):
        super().__init__()
        self.tower = tower.eval().requires_grad_(False)
        sizes: Any = tower.config  # of square images and patches
        self._side, self._patch = sizes.image_size, sizes.patch_size
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(CLIP_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> "PerceptualDistance":
        """Stay as it is: nothing here is trained."""
        return super().train(False)

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 size size"],
        others: Float[Tensor, "batch 3 size size"],
        seeds: Sequence[int],
    ) -> Float[Tensor, ""]:
        """Compute the mean distance, from 0 to 4, of images in [-1, 1].

        Args:
            pixels: Images.
            others: What they are compared with.
            seeds: Decide how far each pair is moved.
        """
        with torch.no_grad():
            wanted = self._features(_move(others, seeds, self._patch))
        found = self._features(_move(pixels, seeds, self._patch))
        distances = [
            (a - b).square().sum(dim=-1).mean() for a, b in zip(found, wanted, strict=True)
        ]
        return torch.stack(distances).mean()

    def _features(self, pixels: Float[Tensor, "batch 3 size size"]) -> list[Tensor]:
        if pixels.shape[-1] != self._side:
            size = (self._side, self._side)
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True)
        normalised = ((pixels + 1) / 2 - self.mean) / self.std
        output = self.tower(pixel_values=normalised, output_hidden_states=True)
        return [F.normalize(layer.float(), dim=-1) for layer in output.hidden_states[1:]]


def _move(
    pixels: Float[Tensor, "batch 3 size size"], seeds: Sequence[int], reach: int
) -> Float[Tensor, "batch 3 size size"]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shifts = [torch.randint(reach, (2,), generator=each).tolist() for each in generators]
    moved = [image.roll(shift, (1, 2)) for image, shift in zip(pixels, shifts, strict=True)]
    return torch.stack(moved)

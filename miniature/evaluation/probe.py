"""A small classifier that reads images of the miniature world.

It stands where the paper has CLIP and DINO scores (section 4.1): in a world of known words, what a
image shows can be read instead of guessed from a similarity.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor, nn

from kosmosg.checkpoints.loading import REMEDY, check_config, load_module, save_module
from kosmosg.errors import WeightsError
from kosmosg.prompts.colours import to_rgb
from kosmosg.prompts.images import resize_and_crop
from miniature.evaluation.probe_labels import SLOTS, Reading, from_labels

SIDE = 128  # of an image of the world, in pixels
CONFIG_FILE = "config.json"
BATCH = 64  # images read at once


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What a probe reads, and its sizes.

    Attributes:
        heads: What there is to choose from (see ``probe_labels.make_heads``).
        channels: Of the convolutions that halve the sides.
        further: Number of convolutions after these, which keep them.
        hidden: Width of the layers before the heads.
    """

    heads: dict[str, tuple[str, ...]]
    channels: tuple[int, ...] = (32, 64, 96, 128)
    further: int = 2
    hidden: int = 128


class Probe(nn.Module):
    """Convolutions, and a look at each of two figures.

    A summary of the whole image decides where the first and the second figure are; what is
    seen there is read by the same layers for both, so that a figure is read in the same way
    wherever it stands.
    """

    def __init__(self, config: ProbeConfig):
        super().__init__()
        self.config = config
        width, hidden = config.channels[-1], config.hidden
        places = (SIDE >> len(config.channels)) ** 2
        sizes = {head: len(names) for head, names in config.heads.items()}
        of_figures = sum(size for head, size in sizes.items() if head.startswith(SLOTS))
        halving = zip((3, *config.channels), config.channels, strict=False)
        self.trunk = nn.Sequential(
            *(_block(ins, outs, stride=2) for ins, outs in halving),
            *(_block(width, width, stride=1) for _ in range(config.further)),
        )
        self.summary = nn.Sequential(
            nn.Conv2d(width, width // 8, kernel_size=1),
            nn.Flatten(),
            nn.Linear(width // 8 * places, hidden),
            nn.ReLU(),
        )
        self.places = nn.Linear(hidden, len(SLOTS) * places)
        self.salience = nn.Conv2d(width, len(SLOTS), kernel_size=1)
        self.image_heads = nn.Linear(hidden + width, sum(sizes.values()) - of_figures)
        self.figure_heads = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, of_figures // len(SLOTS)),
        )

    def forward(
        self, pixels: Float[Tensor, "batch 3 128 128"]
    ) -> tuple[Float[Tensor, "batch _"], ...]:
        """Compute the logits of every head of ``config.heads``, from pixels in [-1, 1]."""
        features = self.trunk(pixels)
        summary = self.summary(features)
        gaze = rearrange(self.places(summary), "b (slot p) -> b slot p", slot=len(SLOTS))
        gaze = gaze + rearrange(self.salience(features), "b slot h w -> b slot (h w)")
        features = rearrange(features, "b c h w -> b (h w) c")
        seen = gaze.softmax(dim=-1) @ features  # (b, slot, c)
        rendering = self.image_heads(torch.cat([summary, features.mean(dim=1)], dim=1))
        figures = rearrange(self.figure_heads(seen), "b slot logits -> b (slot logits)")
        logits = torch.cat([rendering, figures], dim=1)
        return logits.split([len(names) for names in self.config.heads.values()], dim=1)

    @torch.inference_mode()
    def read(self, images: Sequence[Image.Image]) -> list[Reading]:
        """Read images; those of another size are scaled to 128 pixels, and cut to a square."""
        training = self.training
        self.eval()
        labels = [
            self._choose(images[start : start + BATCH]) for start in range(0, len(images), BATCH)
        ]
        self.train(training)
        return [from_labels(row, self.config.heads) for batch in labels for row in batch.tolist()]

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and safetensors, in the precision that the probe has."""
        directory = Path(directory)
        save_module(self, directory)
        text = json.dumps(asdict(self.config), indent=2) + "\n"
        (directory / CONFIG_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "Probe":
        """Open what ``save_pretrained`` wrote, in float32 and evaluation mode, on the CPU.

        Raises:
            WeightsError: If a file is missing, damaged, or of another probe.
        """
        directory = Path(directory)
        file = directory / CONFIG_FILE
        sizes = check_config(file, "probe")
        try:
            heads = {head: tuple(names) for head, names in sizes["heads"].items()}
            channels = tuple(sizes["channels"])
            probe = cls(ProbeConfig(**{**sizes, "heads": heads, "channels": channels}))
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"probe: {file} is not of a probe ({error!r}). {REMEDY}") from error
        return load_module(probe, directory, dtype=torch.float32).eval().requires_grad_(False)

    def _choose(self, images: Sequence[Image.Image]) -> Int64[Tensor, "batch heads"]:
        pixels = to_unit(torch.stack([to_tensor(image) for image in images]))
        logits = self(pixels.to(self.places.weight.device))
        return torch.stack([head.argmax(dim=1) for head in logits], dim=1)


def to_tensor(image: Image.Image) -> UInt8[Tensor, "3 128 128"]:
    """Bring an image to the probe's size."""
    image = to_rgb(image)
    if image.size != (SIDE, SIDE):
        image = resize_and_crop(image, SIDE, Image.Resampling.BICUBIC)
    pixels: Any = np.array(image)
    return torch.from_numpy(rearrange(pixels, "height width rgb -> rgb height width"))


def to_unit(pixels: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bring bytes into [-1, 1]."""
    return pixels.float() / 127.5 - 1.0


def _block(ins: int, outs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(ins, outs, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outs),
        nn.ReLU(),
    )

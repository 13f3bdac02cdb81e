"""Training the probe that measures the miniature: images of the world, and what they show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from kosmosg.training.stage import Stage
from miniature.evaluation.probe import Probe, to_unit
from miniature.evaluation.probe_labels import ABSENT, to_labels, true_reading
from miniature.world.stream import StreamedRendering

# How much an image may be spoilt at most, so that the probe bears with what a VAE and a U-Net
# leave behind. Values are in [-1, 1].
NOISE, BLUR, CONTRAST, TINT = 0.1, 0.8, 0.06, 0.04


@dataclass(frozen=True, kw_only=True)
class ProbeBatch:
    """Images with their labels, and the seeds of what spoils them."""

    pixels: UInt8[Tensor, "batch 3 128 128"]
    labels: Int64[Tensor, "batch heads"]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "ProbeBatch":
        """Move everything to a device."""
        return ProbeBatch(
            pixels=self.pixels.to(device), labels=self.labels.to(device), seeds=self.seeds
        )


class ProbeStage(Stage):
    """Reads every attribute of spoilt images, all at once."""

    def __init__(self, probe: Probe):
        super().__init__()
        self.probe = probe

    def set_modes(self) -> None:
        """Put the probe into training mode."""
        self.probe.train()

    def collate(self, samples: Sequence[StreamedRendering]) -> ProbeBatch:
        """Stack images, and spell out what they show."""
        renderings = [sample.rendering for sample in samples]
        pixels = torch.stack([torch.from_numpy(rendering.image) for rendering in renderings])
        heads = self.probe.config.heads
        labels = torch.tensor(
            [to_labels(true_reading(rendering), heads) for rendering in renderings]
        )
        return ProbeBatch(
            pixels=pixels.permute(0, 3, 1, 2).contiguous(),
            labels=labels,
            seeds=tuple(sample.position for sample in samples),
        )

    def losses(self, batch: ProbeBatch) -> dict[str, Tensor]:
        """Sum the heads' cross-entropies; a head with nothing to say adds nothing."""
        heads = self.probe.config.heads
        logits = self.probe(spoil(to_unit(batch.pixels), batch.seeds))
        losses = {
            head: F.cross_entropy(scores.float(), labels, ignore_index=ABSENT, reduction="sum")
            for head, scores, labels in zip(heads, logits, batch.labels.unbind(1), strict=True)
        }
        return {"loss": torch.stack([*losses.values()]).sum() / len(batch)}

    def save(self, directory: Path) -> None:
        """Write the probe."""
        self.probe.save_pretrained(directory)


def spoil(
    pixels: Float[Tensor, "batch 3 height width"], seeds: Sequence[int]
) -> Float[Tensor, "batch 3 height width"]:
    """Blur, tint and add noise, each image by its own seed and to its own degree."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    degrees = torch.stack([torch.rand(8, 1, 1, generator=each) for each in generators]).to(pixels)
    noise = torch.stack([torch.randn(pixels.shape[1:], generator=each) for each in generators])
    soft = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = pixels.lerp(soft, BLUR * degrees[:, :1].square())
    pixels = pixels * (1 + CONTRAST * (2 * degrees[:, 1:4] - 1)) + TINT * (2 * degrees[:, 4:7] - 1)
    return pixels + NOISE * degrees[:, 7:].square() * noise.to(pixels)

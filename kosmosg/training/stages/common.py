"""What the three stages share: batches of prompts, what is trained, how a result is written."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kosmosg.checkpoints.folder import write_model_index
from kosmosg.data.preprocessing import Prepared
from kosmosg.data.schema import Sample
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.batch import Batch, collate

# What a result does not carry over from the weights it began with: the one is written anew, the
# other belongs to stage 2 alone, which writes it beside.
TRAINED = ("kosmosg", "reconstruction")


@dataclass(frozen=True, kw_only=True)
class SeededSample:
    """A prepared sample with the seed of the noise that a stage draws for it."""

    prepared: Prepared
    seed: int


def with_seed(
    prepare: Callable[[Sample, np.random.Generator], Prepared],
) -> Callable[[Sample, np.random.Generator], SeededSample]:
    """Let every prepared sample carry a seed, drawn from the generator of its place."""

    def prepare_with_seed(sample: Sample, generator: np.random.Generator) -> SeededSample:
        prepared = prepare(sample, generator)
        return SeededSample(prepared=prepared, seed=int(generator.integers(2**62)))

    return prepare_with_seed


@dataclass(frozen=True, kw_only=True)
class PromptBatch:
    """A batch of prompts and their stage's targets.

    Attributes:
        prompts: As the language model reads them.
        captions: CLIP's token ids of the captions (stage 2), or nothing.
        targets: Images to be generated, in [-1, 1] (stage 3), or nothing.
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
    samples: Sequence[SeededSample], captions: Int64[Tensor, "batch length"] | None = None
) -> PromptBatch:
    """Pad prompts, stack their images and their targets."""
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
    image, a blank one is looked at, and nothing of it taken.
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


def save_weights(kosmosg: KosmosG, stage: str, start: Path, directory: Path) -> None:
    """Write a weights folder with a trained KOSMOS-G.

    Args:
        kosmosg: Trained.
        stage: The stage it has been through.
        start: Weights folder that the stage began with, for all that is not trained.
        directory: Where to write; made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for part in start.iterdir():
        if part.is_dir() and part.name not in TRAINED:
            shutil.copytree(part, directory / part.name, dirs_exist_ok=True)
    kosmosg.config.stage = stage
    kosmosg.save_pretrained(directory / "kosmosg")
    write_model_index(directory)

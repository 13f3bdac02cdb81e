"""Random weights of any size: a checkpoint with the authors' names, and what it converts to.

The checkpoint is written without being held in memory: torch leaves room for every tensor in the
file, and the values are drawn into that room, mapped, one tensor after the other.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from kosmosg.checkpoints.convert import convert_checkpoint
from kosmosg.checkpoints.mapping import EMBEDDING, OUTPUT_MATRIX
from kosmosg.checkpoints.parameter_names import KOSMOSG, UNET, VAE, official_key
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource
from kosmosg.models.config import FULL_SIZE
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.prompts.tokenizer import DICTIONARY_FILE
from tests import tiny

SIZES: dict[str, dict[str, Any]] = {"small": tiny.SIZES, "full": FULL_SIZE}


@dataclass(frozen=True, kw_only=True)
class RandomWeights:
    """Random weights of a size, below a folder; at full size they take 11.4 GB of disk."""

    folder: Path
    size: str

    @property
    def checkpoint(self) -> Path:
        """The ``.pt`` file, in float16."""
        return self.folder / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        """The weights folder that it converts to."""
        return self.folder / "weights"

    def make(self) -> None:
        """Write both, unless they are there."""
        decoder = self.folder / "stable-diffusion"
        decoder.mkdir(parents=True, exist_ok=True)
        if self.size == "small":  # at full size the configurations are known
            small = tiny.make_random_decoder(SIZES["small"]["aligner"]["dim"])
            small.unet.save_config(decoder / UNET)
            small.vae.save_config(decoder / VAE)
        if not (self.folder / "tokenizer" / DICTIONARY_FILE).is_file():
            tiny.write_tokenizer(self.folder / "tokenizer", SIZES[self.size]["vocab_size"])
        if not self.checkpoint.is_file():
            unfinished = self.checkpoint.with_suffix(".part")
            write_room(unfinished, self.shapes())
            draw_values(unfinished)
            unfinished.rename(self.checkpoint)
        if not self.weights.is_dir():
            self.convert(self.weights)

    def convert(self, output: Path) -> None:
        """Convert the checkpoint, which holds everything but a safety checker."""
        convert_checkpoint(
            self.checkpoint,
            output,
            tokenizer=self.folder / "tokenizer",
            stable_diffusion=str(self.folder / "stable-diffusion"),
            sizes=SIZES[self.size],
            safety_checker=False,
            progress=False,
        )

    def shapes(self) -> dict[str, torch.Size]:
        """Shapes of all parameters by the authors' names."""
        source = StableDiffusionSource(location=str(self.folder / "stable-diffusion"))
        with torch.device("meta"):
            modules: dict[str, Any] = {
                KOSMOSG: KosmosG(KosmosGConfig.from_sizes(SIZES[self.size])),
                UNET: source.empty(UNET),
                VAE: source.empty(VAE),
            }
        return {
            str(official_key(part, name)): tensor.shape
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        }


def write_room(file: Path, shapes: dict[str, torch.Size]) -> None:
    """Write a checkpoint whose float16 tensors hold nothing yet.

    Raises:
        OSError: If the disk is full; found out later it would be a crash while drawing.
    """
    with FakeTensorMode():
        tensors = {key: torch.empty(shape, dtype=torch.half) for key, shape in shapes.items()}
    tensors[OUTPUT_MATRIX] = tensors[EMBEDDING]
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"model": tensors}, file)
    with file.open("r+b") as opened:
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def draw_values(file: Path) -> None:
    """Draw the values of a checkpoint in place, the same ones every time."""
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        tensors = torch.load(file, mmap=True, weights_only=True)["model"]
    generator = torch.Generator().manual_seed(0)
    for key, tensor in tensors.items():
        if key != OUTPUT_MATRIX:
            _draw(key, tensor, generator)


def _draw(key: str, tensor: Tensor, generator: torch.Generator) -> None:
    # So that signals keep their size on the way: with the libraries' own initial values a network
    # hardly hears its input, and any two precisions would generate the same image.
    if tensor.dim() > 1:
        tensor.normal_(std=(tensor.numel() / len(tensor)) ** -0.5, generator=generator)
    elif key.endswith("bias"):
        tensor.zero_()
    elif key.endswith("weight"):  # of a norm
        tensor.fill_(1.0)
    else:
        tensor.normal_(std=len(tensor) ** -0.5, generator=generator)

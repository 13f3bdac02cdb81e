"""Weights of any size at random: a checkpoint with the authors' names, and what it converts to.

The checkpoint is written without being held in memory: torch leaves room for every tensor in the
file, and the values are drawn into that room, mapped, one tensor after the other.
"""

import logging
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from kosmosg.checkpoints.convert import convert
from kosmosg.checkpoints.mapping import EMBEDDING, OUTPUT_MATRIX
from kosmosg.checkpoints.parameter_names import KOSMOSG, UNET, VAE, official_key
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource
from kosmosg.models.config import FULL_SIZE
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.prompts.tokenizer import DICTIONARY_FILE
from tests import tiny

logger = logging.getLogger(__name__)

SIZES: dict[str, dict[str, Any]] = {"small": tiny.SIZES, "full": FULL_SIZE}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint and what ``convert`` needs besides.

    Attributes:
        file: The ``.pt`` file, in float16.
        tokenizer: Folder with a tokenizer of the right size.
        stable_diffusion: Folder with the sizes of the decoder, where they are not the usual ones.
        sizes: As ``convert`` takes them.
    """

    file: Path
    tokenizer: Path
    stable_diffusion: Path
    sizes: dict[str, Any]


def fabricate_checkpoint(folder: Path, size: str) -> Checkpoint:
    """Write a checkpoint of stage 3, unless it is there.

    Args:
        folder: For everything that a size needs.
        size: A key of ``SIZES``.

    Raises:
        OSError: If the disk is full.
    """
    checkpoint = Checkpoint(
        file=folder / "checkpoint.pt",
        tokenizer=folder / "tokenizer",
        stable_diffusion=folder / "stable-diffusion",
        sizes=SIZES[size],
    )
    checkpoint.stable_diffusion.mkdir(parents=True, exist_ok=True)
    if size == "small":
        decoder = tiny.make_random_decoder(checkpoint.sizes["aligner"]["dim"])
        decoder.unet.save_config(checkpoint.stable_diffusion / UNET)
        decoder.vae.save_config(checkpoint.stable_diffusion / VAE)
    if not (checkpoint.tokenizer / DICTIONARY_FILE).is_file():
        tiny.write_tokenizer(checkpoint.tokenizer, checkpoint.sizes["vocab_size"])
    if not checkpoint.file.is_file():
        logger.info("Drawing random weights into %s.", checkpoint.file)
        unfinished = checkpoint.file.with_suffix(".part")
        write_room(unfinished, official_shapes(checkpoint))
        fill(unfinished)
        unfinished.rename(checkpoint.file)
    return checkpoint


def fabricate_weights(folder: Path, size: str) -> Path:
    """Convert the fabricated checkpoint, unless that is done; the weights directory."""
    directory = folder / "weights"
    if not directory.is_dir():
        checkpoint = fabricate_checkpoint(folder, size)
        logger.info("Converting %s.", checkpoint.file)
        convert(
            checkpoint.file,
            directory,
            tokenizer=checkpoint.tokenizer,
            stable_diffusion=str(checkpoint.stable_diffusion),
            sizes=checkpoint.sizes,
            safety_checker=False,
            progress=False,
        )
    return directory


def official_shapes(checkpoint: Checkpoint) -> dict[str, torch.Size]:
    """Shapes of all parameters by the authors' names."""
    source = StableDiffusionSource(location=str(checkpoint.stable_diffusion))
    with torch.device("meta"):
        modules: dict[str, Any] = {
            KOSMOSG: KosmosG(KosmosGConfig.from_sizes(checkpoint.sizes)),
            UNET: source.empty(UNET),
            VAE: source.empty(VAE),
        }
    shapes = {}
    for part, module in modules.items():
        for name, tensor in module.state_dict().items():
            key = official_key(part, name)
            assert key is not None, name
            shapes[key] = tensor.shape
    return shapes


def write_room(file: Path, shapes: dict[str, torch.Size]) -> None:
    """Write a checkpoint whose tensors, in float16, hold nothing yet.

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


def fill(file: Path) -> None:
    """Draw the values of a checkpoint in place, the same ones every time."""
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        tensors = torch.load(file, mmap=True, weights_only=True)["model"]
    generator = torch.Generator().manual_seed(0)
    for key, tensor in tensors.items():
        if key != OUTPUT_MATRIX:
            draw(key, tensor, generator)


def draw(key: str, tensor: Tensor, generator: torch.Generator) -> None:
    """Draw a parameter so that signals keep their size on the way through the network.

    The libraries' own initial values let a network ignore its input; then any two precisions
    would draw the same picture.
    """
    if tensor.dim() > 1:
        tensor.normal_(std=(tensor.numel() / len(tensor)) ** -0.5, generator=generator)
    elif key.endswith("bias"):
        tensor.zero_()
    elif key.endswith("weight"):  # of a norm
        tensor.fill_(1.0)
    else:
        tensor.normal_(std=len(tensor) ** -0.5, generator=generator)

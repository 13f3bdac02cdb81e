"""A weights folder to begin training with: KOSMOS-G from nothing, its decoder from others.

Paper, sections 2.1 and 2.2: the language model begins at random, the vision tower as CLIP's, the
decoder is Stable Diffusion's and stays so.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPModel

from kosmosg.checkpoints.convert import check_output, count_values, new_weights, save
from kosmosg.checkpoints.loading import load_component
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource
from kosmosg.errors import CheckpointError
from kosmosg.models.config import check_sizes
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
from kosmosg.prompts.tokenizer import KosmosGTokenizer

# What two image towers must have in common; not all of it shows in the shapes of their weights.
TOWER = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("image_size", "patch_size", "hidden_act", "layer_norm_eps"),
)


def write_untrained(
    output: Path,
    *,
    sizes: dict[str, Any],
    tokenizer: Path,
    stable_diffusion: str,
    clip: Path | None = None,
    text_encoder: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> None:
    """Write a weights folder with an untrained KOSMOS-G.

    Args:
        output: Weights folder to write; it must be empty or absent.
        sizes: In the form of ``config.FULL_SIZE``.
        tokenizer: KOSMOS-G's tokenizer folder.
        stable_diffusion: Folder or Hub repository with the decoder.
        clip: Folder of a CLIP whose image tower is taken over; at random without one.
        text_encoder: Take CLIP's text encoder along, for stage 2 and for comparison.
        dtype: Precision of the written weights.
        seed: Of the random weights.

    Raises:
        CheckpointError: If the parts do not fit together.
        WeightsError: If the tokenizer or CLIP cannot be read.
    """
    check_output(output)
    check_sizes(sizes)
    parts: dict[str, Any] = {"tokenizer": _open_tokenizer(tokenizer, sizes["vocab_size"])}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kosmosg: Any = KosmosG(KosmosGConfig.from_sizes(sizes, stage="none"))
        make_images_visible(kosmosg)
    if clip:
        take_vision_tower(kosmosg, clip)
    parts["kosmosg"] = kosmosg.to(dtype)
    source = StableDiffusionSource(location=stable_diffusion)
    for part in ("unet", "vae"):
        parts[part] = source.load(part, dtype, width=sizes["aligner"]["dim"])
    parts["scheduler"] = source.scheduler()
    if text_encoder:
        parts["text_encoder"], parts["clip_tokenizer"] = source.text_encoder(dtype)
    needed = sum(map(count_values, parts.values())) * dtype.itemsize
    with new_weights(output, needed) as folder:
        for name, part in parts.items():
            save(part, folder / name)


def _open_tokenizer(directory: Path, entries: int) -> KosmosGTokenizer:
    tokenizer = KosmosGTokenizer.from_pretrained(directory)
    if len(tokenizer) != entries:
        raise CheckpointError(
            f"The tokenizer in {directory} has {len(tokenizer)} entries, but the configuration "
            f"says vocab_size={entries}. Change one of them."
        )
    return tokenizer


def make_images_visible(kosmosg: KosmosG) -> None:
    """Let the resampler begin with weights that keep the size of what goes through.

    What comes to it has length one, and the library's initial values leave 0.004 of it, in which
    two images differ by a ten-thousandth, beside positions of size one. A language model that
    begins so does not see its images for a long time.
    """
    resampler: Any = kosmosg.kosmos2.image_to_text_projection
    nn.init.normal_(resampler.dense.weight, std=1.0)
    for layer in resampler.x_attn.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)


def take_vision_tower(kosmosg: KosmosG, directory: Path) -> None:
    """Let the vision tower begin as CLIP's.

    Args:
        kosmosg: Whose tower is overwritten.
        directory: Folder with a ``CLIPModel``.

    Raises:
        CheckpointError: If the towers differ; with both values.
    """
    clip: Any = load_component(CLIPModel, directory, dtype=torch.float32)
    ours: Any = kosmosg.config.kosmos2.vision_config
    theirs = clip.config.vision_config
    for name in TOWER:
        found, wanted = getattr(theirs, name), getattr(ours, name)
        if found != wanted:
            raise CheckpointError(
                f"The image tower of {directory} has {name}={found!r}, but the configuration says "
                f"{wanted!r}. Change one of them."
            )
    kosmosg.kosmos2.vision_model.model.load_state_dict(clip.vision_model.state_dict())

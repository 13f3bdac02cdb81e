"""Where every tensor of a checkpoint belongs, found and checked before anything is written.

Every key of the file must find its place in the key table or be known to be dead, and every
parameter of the model must be filled: the original loads non-strictly, so that a missing key is
silently a wrong image.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from kosmosg.checkpoints.parameter_names import (
    KOSMOSG,
    RECONSTRUCTION,
    UNET,
    VAE,
    find_target,
    why_dead,
)
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource
from kosmosg.errors import CheckpointError
from kosmosg.models.aligner import AlignerNet, Reconstruction
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig

EMBEDDING = "gpt_model.decoder.embed_tokens.weight"
OUTPUT_MATRIX = "gpt_model.decoder.output_projection.weight"

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class CheckpointMapping:
    """Every tensor of a checkpoint at its place, checked but not yet read.

    Attributes:
        stage: As in ``Conversion``.
        vocabulary: Number of the language model's token ids.
        modules: The components that the checkpoint fills, built without memory.
        tensors: By component and name, mapped from the file.
        left_out: As in ``Conversion``.
    """

    stage: str
    vocabulary: int
    modules: dict[str, nn.Module]
    tensors: dict[str, Tensors]
    left_out: dict[str, int]


def map_checkpoint(
    tensors: Tensors,
    sizes: dict[str, Any],
    source: StableDiffusionSource,
    ignore: Iterable[str] = (),
) -> CheckpointMapping:
    """Find the place of every tensor and compare names and shapes with the model's.

    Raises:
        CheckpointError: If a key is unknown, missing, left over, or of another shape.
    """
    parts, left_out = sort_tensors(tensors, ignore)
    stage = find_stage(tensors)
    config = KosmosGConfig.from_sizes(sizes, stage=stage)
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {KOSMOSG: KosmosG(config)}
        if RECONSTRUCTION in parts:
            modules[RECONSTRUCTION] = Reconstruction(config.aligner_config)
    if stage == "lm":
        parts[KOSMOSG] |= initial_aligner(config)
    modules |= {part: source.empty(part) for part in (UNET, VAE) if part in parts}
    for part, module in modules.items():
        check_complete(part, module, parts[part])
    return CheckpointMapping(
        stage=stage,
        vocabulary=sizes["vocab_size"],
        modules=modules,
        tensors=parts,
        left_out=dict(left_out),
    )


def sort_tensors(
    tensors: Tensors, ignore: Iterable[str] = ()
) -> tuple[dict[str, Tensors], Counter[str]]:
    """Find the component and name of every tensor.

    Returns:
        Tensors by component and name, and the number of keys left out by reason.

    Raises:
        CheckpointError: Listing keys that are neither in the table nor known to be dead.
    """
    parts: dict[str, Tensors] = {KOSMOSG: {}}
    left_out: Counter[str] = Counter()
    unknown, twice = [], []
    for key, tensor in tensors.items():
        if reason := why_dead(key):
            left_out[reason] += 1
        elif target := find_target(key):
            part = parts.setdefault(target.component, {})
            if target.name in part:
                twice.append(key)
            part[target.name] = tensor
        elif any(fnmatchcase(key, pattern) for pattern in ignore):
            left_out["ignored as asked"] += 1
        else:
            unknown.append(key)
    if unknown:
        raise CheckpointError(
            f"The checkpoint has {len(unknown)} unknown keys: {shorten(unknown)}. If you know that "
            "they do not matter, leave them out with --ignore PATTERN."
        )
    if twice:
        raise CheckpointError(
            f"The checkpoint has {len(twice)} parameters under an old and a new name: "
            f"{shorten(twice)}. Leave one of each out of the file."
        )
    tied = [tensors[key] for key in (OUTPUT_MATRIX, EMBEDDING) if key in tensors]
    if len(tied) == 2 and not torch.equal(*tied):
        raise CheckpointError(f"{OUTPUT_MATRIX} differs from {EMBEDDING}; they must be tied.")
    return parts, left_out


def find_stage(keys: Iterable[str]) -> str:
    """Tell the last training stage from which modules a checkpoint has."""
    aligner = [key for key in keys if key.startswith("aligner.")]
    if not aligner:
        return "lm"
    only_in_stage_2 = ("aligner.decoder", "aligner.clip_encoder")
    return "align" if any(key.startswith(only_in_stage_2) for key in aligner) else "instruct"


def initial_aligner(config: KosmosGConfig) -> Tensors:
    """Initialise AlignerNet, the same way every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        aligner = AlignerNet(config.aligner_config)
    return {f"aligner.{name}": tensor for name, tensor in aligner.state_dict().items()}


def check_complete(part: str, module: nn.Module, tensors: Tensors) -> None:
    """Compare names and shapes with the module's.

    Raises:
        CheckpointError: Listing what is missing, left over, or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = [name for name in wanted if name not in tensors]
    extra = [name for name in tensors if name not in wanted]
    kinds = [
        f"{name} {tensors[name].dtype}"
        for name in wanted
        if name in tensors and not tensors[name].is_floating_point()
    ]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    problems = [
        f"{len(names)} {label}: {shorten(names)}"
        for label, names in (
            ("missing", missing),
            ("left over", extra),
            ("ill-shaped", shapes),
            ("not of a real type", kinds),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{part}: {'; '.join(problems)}. If this is a model of another size, describe it with "
            "--config FILE."
        )


def shorten(names: list[str], most: int = 8) -> str:
    """List the first few names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

"""The authors' checkpoint → a weights directory in the diffusers layout.

``plan.py`` finds the place of every tensor; here they are written. The output appears complete or
not at all.
"""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from kosmosg.checkpoints.fairseq import read_checkpoint
from kosmosg.checkpoints.folder import write_model_index
from kosmosg.checkpoints.loading import is_finite, save_module
from kosmosg.checkpoints.mapping import Plan, make_plan
from kosmosg.checkpoints.parameter_names import UNET, VAE
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource
from kosmosg.errors import CheckpointError
from kosmosg.models.aligner import Reconstruction
from kosmosg.models.config import FULL_SIZE, SD15_REPOSITORY
from kosmosg.models.sizes import check_sizes
from kosmosg.prompts.tokenizer import KosmosGTokenizer

SHARD_SIZE = "1GB"  # bounds the memory that writing takes


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion did.

    Attributes:
        stage: Last training stage of the checkpoint: "lm", "align" or "instruct".
        converted: Number of tensors per component.
        left_out: Number of keys left out, by reason.
        notes: What the user should know.
    """

    stage: str
    converted: dict[str, int]
    left_out: dict[str, int]
    notes: tuple[str, ...]


def convert(
    checkpoint: str | Path,
    output: str | Path,
    *,
    tokenizer: str | Path,
    stable_diffusion: str = SD15_REPOSITORY,
    sizes: dict[str, Any] = FULL_SIZE,
    dtype: torch.dtype = torch.float16,
    ignore: Iterable[str] = (),
    safety_checker: bool = True,
    progress: bool = True,
) -> Conversion:
    """Convert a checkpoint of any stage.

    Args:
        checkpoint: ``.pt`` or safetensors file with the authors' parameter names.
        output: Directory to write; it must be empty or absent.
        tokenizer: Folder with ``sentencepiece.bpe.model`` and ``dict.txt``.
        stable_diffusion: Folder or Hub repository in the diffusers layout, for the U-Net, VAE and
            safety checker that the file lacks.
        sizes: The authors' run configuration, see ``config.FULL_SIZE``.
        dtype: Precision of the written weights.
        ignore: Patterns of unknown keys to leave out instead of failing.
        safety_checker: Take the safety checker from ``stable_diffusion`` too.
        progress: Show a progress bar.

    Raises:
        CheckpointError: If keys are missing, unknown, of another shape or not finite, or a part
            cannot be found.
        WeightsError: If the tokenizer cannot be read.
    """
    check_output(output)
    check_sizes(sizes)
    words = KosmosGTokenizer.from_pretrained(tokenizer)
    source = StableDiffusionSource(location=stable_diffusion)
    plan = make_plan(read_checkpoint(checkpoint), sizes, source, ignore)
    return write_directory(
        plan, Path(output), words, source, dtype, safety_checker=safety_checker, progress=progress
    )


def check_disk(directory: Path, plan: Plan, dtype: torch.dtype) -> None:
    """Refuse to start writing what cannot fit.

    Raises:
        CheckpointError: With both numbers.
    """
    values = sum(tensor.numel() for part in plan.tensors.values() for tensor in part.values())
    needed, free = values * dtype.itemsize, shutil.disk_usage(directory).free
    if free < needed:
        raise CheckpointError(
            f"{directory} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed. Make "
            "room or write elsewhere."
        )


def check_output(output: str | Path) -> None:
    """Refuse to write over anything.

    Raises:
        CheckpointError: If the directory is there and not empty.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{output} exists already. Remove it or choose another directory.")


def write_directory(
    plan: Plan,
    output: Path,
    words: KosmosGTokenizer,
    source: StableDiffusionSource,
    dtype: torch.dtype,
    *,
    safety_checker: bool,
    progress: bool,
) -> Conversion:
    """Write everything beside the output, and give it its name when it is complete."""
    converted = {part: len(tensors) for part, tensors in plan.tensors.items()}
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    check_disk(output.parent, plan, dtype)
    # A fresh name: what else is there, even if it ends in .part, is not ours to remove.
    unfinished = Path(tempfile.mkdtemp(prefix=f"{output.name}.", suffix=".part", dir=output.parent))
    unfinished.chmod(0o755)
    try:
        write_parts(plan, unfinished, source, dtype, progress)
        if safety_checker:
            for part, component in source.safety_checker(dtype).items():
                save(component, unfinished / part)
        words.save_pretrained(unfinished / "tokenizer")
        save(source.scheduler(), unfinished / "scheduler")
        write_model_index(unfinished)
        notes = tuple(make_notes(plan, unfinished, len(words)))
        if output.exists():
            output.rmdir()
        unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Conversion(stage=plan.stage, converted=converted, left_out=plan.left_out, notes=notes)


def write_parts(
    plan: Plan, directory: Path, source: StableDiffusionSource, dtype: torch.dtype, progress: bool
) -> None:
    """Write the networks one after the other; what the checkpoint lacks comes from ``source``."""
    total = sum(len(tensors) for tensors in plan.tensors.values())
    with tqdm(total=total, desc="convert", unit="tensor", disable=not progress) as bar:
        for part in (UNET, VAE):
            if part not in plan.modules:
                save(source.load(part, dtype), directory / part)
        for part in list(plan.modules):
            # Taken out of the plan, so that one network at most is held in another precision.
            module, tensors = plan.modules.pop(part), plan.tensors.pop(part)
            for name, tensor in tensors.items():
                tensors[name] = cast(name, tensor, dtype)
                bar.update()
            module.load_state_dict(tensors, strict=True, assign=True)
            save(module, directory / part)


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Change the precision where it differs; a tensor that fits stays mapped to its file.

    Raises:
        CheckpointError: If a value is not finite, before or after.
    """
    converted = tensor.to(dtype) if tensor.is_floating_point() else tensor
    if not is_finite(converted):
        raise CheckpointError(f"{name} holds values that are not finite in {dtype}.")
    return converted


def save(component: Any, directory: Path) -> None:
    """Write a component; networks in safetensors."""
    if isinstance(component, Reconstruction):
        save_module(component, directory)
    elif isinstance(component, nn.Module):
        write: Any = component.save_pretrained
        write(directory, max_shard_size=SHARD_SIZE)
    else:
        component.save_pretrained(directory)
    # safetensors leaves its files readable by their owner alone; a container has other users.
    for file in directory.iterdir():
        file.chmod(0o644)


def make_notes(plan: Plan, directory: Path, words: int) -> Iterable[str]:
    """Say what a user should know about the result."""
    if words != plan.vocabulary:
        yield (
            f"The dictionary has {words} entries but the model {plan.vocabulary}: they do not "
            "belong together, and prompts will be refused."
        )
    if plan.stage == "lm":
        yield "A stage-1 checkpoint: AlignerNet is not trained, and pictures will be noise."
    if not (directory / "safety_checker").is_dir():
        yield "Without a safety checker: a server of full-size weights will refuse to start."

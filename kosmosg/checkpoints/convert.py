"""The authors' checkpoint → a weights folder in the diffusers layout.

``mapping`` finds the place of every tensor; here they are written. The output appears complete or
not at all.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm

from kosmosg.checkpoints.fairseq import read_fairseq_checkpoint
from kosmosg.checkpoints.folder import write_model_index
from kosmosg.checkpoints.loading import is_finite, save_module
from kosmosg.checkpoints.mapping import CheckpointMapping, map_checkpoint
from kosmosg.checkpoints.parameter_names import KOSMOSG, UNET, VAE
from kosmosg.checkpoints.stable_diffusion import StableDiffusionSource
from kosmosg.errors import CheckpointError
from kosmosg.models.aligner import Reconstruction
from kosmosg.models.config import FULL_SIZE, SD15_REPOSITORY, check_sizes
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.files import atomic_folder, check_space, reason

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


def convert_checkpoint(
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
        output: Weights folder to write; it must be empty or absent.
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
    mapping = map_checkpoint(read_fairseq_checkpoint(checkpoint), sizes, source, ignore)
    return write_weights(
        mapping,
        Path(output),
        words,
        source,
        dtype,
        safety_checker=safety_checker,
        progress=progress,
    )


def check_output(output: str | Path) -> None:
    """Refuse to write over anything.

    Raises:
        CheckpointError: If something is there that is not an empty folder.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{output} exists already. Remove it or choose another folder.")


def write_weights(
    mapping: CheckpointMapping,
    output: Path,
    tokenizer: KosmosGTokenizer,
    source: StableDiffusionSource,
    dtype: torch.dtype,
    *,
    safety_checker: bool,
    progress: bool,
) -> Conversion:
    """Write the weights folder that a mapping describes, and what is missing from ``source``.

    What comes from elsewhere is read before the checkpoint's tensors, which take minutes.
    """
    converted = {part: len(tensors) for part, tensors in mapping.tensors.items()}
    others: dict[str, Any] = {"tokenizer": tokenizer, "scheduler": source.scheduler()}
    if safety_checker:
        others |= source.safety_checker(dtype)
    kosmosg: Any = mapping.modules[KOSMOSG]
    missing = [part for part in (UNET, VAE) if part not in mapping.modules]
    needed = sum(tensor.numel() for part in mapping.tensors.values() for tensor in part.values())
    needed += sum(map(count_values, (*others.values(), *map(source.empty, missing))))
    with new_weights(output, needed * dtype.itemsize) as folder:
        for part in list(others):
            save(others.pop(part), folder / part)
        for part in missing:
            save(source.load(part, dtype, width=kosmosg.config.aligner["dim"]), folder / part)
        write_tensors(mapping, folder, dtype, progress)
        notes = tuple(make_notes(mapping, folder, len(tokenizer)))
    return Conversion(
        stage=mapping.stage, converted=converted, left_out=mapping.left_out, notes=notes
    )


@contextmanager
def new_weights(output: Path, needed: int) -> Iterator[Path]:
    """Give a folder to write components into, which becomes a weights folder at the end.

    Args:
        output: Where; absent or empty.
        needed: Bytes that will be written.

    Raises:
        CheckpointError: If they do not fit, or cannot be written.
    """
    check_space(output, needed, error=CheckpointError)
    try:
        with atomic_folder(output) as folder:
            yield folder
            write_model_index(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{output} cannot be written ({reason(error)}). Mend that or write elsewhere."
        ) from error


def count_values(component: Any) -> int:
    """Count the numbers that a network holds; nothing else takes room to speak of."""
    tensors = component.state_dict().values() if isinstance(component, nn.Module) else ()
    return sum(tensor.numel() for tensor in tensors)


def write_tensors(
    mapping: CheckpointMapping, folder: Path, dtype: torch.dtype, progress: bool
) -> None:
    """Write the checkpoint's networks one after the other."""
    total = sum(len(tensors) for tensors in mapping.tensors.values())
    with tqdm(total=total, desc="convert", unit="tensor", disable=not progress) as bar:
        for part in list(mapping.modules):
            # Taken out of the mapping, so that one network at most is held in another precision.
            module, tensors = mapping.modules.pop(part), mapping.tensors.pop(part)
            for name, tensor in tensors.items():
                tensors[name] = cast(name, tensor, dtype)
                bar.update()
            module.load_state_dict(tensors, strict=True, assign=True)
            save(module, folder / part)


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Change the precision where it differs; a tensor that fits stays mapped to its file.

    Raises:
        CheckpointError: If a value is not finite, before or after.
    """
    converted = tensor.to(dtype) if tensor.is_floating_point() else tensor
    if not is_finite(converted):
        raise CheckpointError(f"{name} holds values that are not finite in {dtype}.")
    return converted


def save(component: Any, folder: Path) -> None:
    """Write a component; networks in safetensors."""
    if isinstance(component, Reconstruction):
        save_module(component, folder)
    elif isinstance(component, nn.Module):
        write: Any = component.save_pretrained
        write(folder, max_shard_size=SHARD_SIZE)
    else:
        component.save_pretrained(folder)
    # safetensors leaves its files readable by their owner alone; a container has other users.
    for file in folder.iterdir():
        file.chmod(0o644)


def make_notes(mapping: CheckpointMapping, folder: Path, words: int) -> Iterable[str]:
    """Say what a user should know about the result."""
    if words != mapping.vocabulary:
        yield (
            f"The dictionary has {words} entries but the model {mapping.vocabulary}: they do not "
            "belong together, and prompts will be refused."
        )
    if mapping.stage == "lm":
        yield "A stage-1 checkpoint: AlignerNet is not trained, and images will be noise."
    if not (folder / "safety_checker").is_dir():
        yield "Without a safety checker: a server of full-size weights will refuse to start."

"""Where weights are, what a weights folder looks like, and how its parts are opened."""

import json
import os
from collections.abc import Container
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPImageProcessorPil

from kosmosg.checkpoints.history import HISTORY
from kosmosg.checkpoints.loading import cannot_load, check_config, load_component, load_model
from kosmosg.checkpoints.stable_diffusion import load_scheduler
from kosmosg.errors import WeightsError
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.hub import fetch_repository, is_repository_id

ENVIRONMENT_VARIABLE = "KOSMOSG_WEIGHTS"
DEFAULT_DIRECTORY = Path("weights/kosmos-g")
MINIATURE = Path("weights/miniature")
CONTROLNETS = Path("weights/controlnet")
# What a stage may begin with besides: the teacher of stage 2, and the half that only it trains.
TRAINING_PARTS = ("text_encoder", "clip_tokenizer", "reconstruction")

# Component → library and class, as diffusers writes them into model_index.json.
COMPONENTS = {
    "kosmosg": ("kosmosg", "KosmosG"),
    "tokenizer": ("kosmosg", "KosmosGTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "scheduler": ("diffusers", "PNDMScheduler"),
}
OPTIONAL_COMPONENTS = {
    "safety_checker": ("stable_diffusion", "StableDiffusionSafetyChecker"),
    "feature_extractor": ("transformers", "CLIPImageProcessorPil"),
}
NETWORKS: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "safety_checker": StableDiffusionSafetyChecker,
}
# What is taken of a Hub repository. Nothing else is read: no pickles, no code.
TRAINING_PATTERNS = [
    HISTORY,
    *(f"{part}/*.{kind}" for part in TRAINING_PARTS for kind in ("json", "safetensors", "txt")),
]
PATTERNS = [
    "model_index.json",
    *(
        f"{part}/*.{kind}"
        for part in (*COMPONENTS, *OPTIONAL_COMPONENTS, CONTROLNETS.name)
        for kind in ("json", "safetensors")
    ),
    *(f"tokenizer/{name}" for name in KosmosGTokenizer.vocab_files_names.values()),
]


def find_weights(argument: str | os.PathLike | None = None) -> Path:
    """Find the weights directory: the argument, ``KOSMOSG_WEIGHTS``, ``weights/kosmos-g``.

    The first of them that is given is taken and must be there; the miniature is never chosen
    silently.

    Raises:
        WeightsError: Naming the places tried and the remedies.
    """
    named = argument or os.environ.get(ENVIRONMENT_VARIABLE)
    directory = Path(named) if named else DEFAULT_DIRECTORY
    if not directory.is_dir():
        remedies = [
            "convert a checkpoint (python -m kosmosg convert)",
            "download what it needs (python -m kosmosg download)",
        ]
        if MINIATURE.is_dir():
            remedies.append(f"name the miniature (--weights {MINIATURE})")
        how = "as asked" if argument else f"from {ENVIRONMENT_VARIABLE}" if named else "by default"
        raise WeightsError(
            f"There are no weights in {directory} ({how}). Places: the argument (--weights, or "
            f"COG_WEIGHTS in the container), the environment variable {ENVIRONMENT_VARIABLE}, "
            f"{DEFAULT_DIRECTORY}. Remedies: {'; '.join(remedies)}."
        )
    check_layout(directory)
    return directory


def fetch_weights(
    argument: str | Path | None, *, training: bool = False, revision: str | None = None
) -> Path:
    """Find the weights directory as ``find_weights`` does, or fetch it if the Hub is named.

    Args:
        argument: A folder, a repository (``owner/name``), or nothing.
        training: Take what only a stage of training needs along.
        revision: Of the repository.

    Raises:
        WeightsError: If there is neither, or something is missing.
    """
    if argument is None or not is_on_hub(argument):
        return find_weights(argument)
    directory = locate_weights(str(argument), training=training, revision=revision)
    check_layout(directory, name=argument)
    return directory


def is_on_hub(argument: str | Path) -> bool:
    """Tell whether a command's argument is meant for the Hub: ``weights/typo`` lies here."""
    name = str(argument)
    return is_repository_id(name) and not Path(name).parent.is_dir()


def locate_weights(source: str | Path, *, training: bool = False, **options: Any) -> Path:
    """Find a weights folder, or fetch one from the Hub into its cache.

    Args:
        source: A folder, or a repository (``owner/name``).
        training: Take what only a stage of training needs along.
        options: As ``huggingface_hub.snapshot_download`` takes them: revision, cache_dir, token, …

    Raises:
        WeightsError: If the repository cannot be had.
    """
    if not is_repository_id(source):
        return Path(source)
    patterns = [*PATTERNS, *TRAINING_PATTERNS] if training else PATTERNS
    return fetch_repository(str(source), patterns, **options)


def check_layout(
    directory: Path, without: Container[str] = (), *, name: str | Path | None = None
) -> None:
    """Check that a folder has every component, but for those that are not needed.

    Args:
        directory: The folder.
        without: Components that are not needed.
        name: What to call the folder in errors, such as the repository that it came from.

    Raises:
        WeightsError: Naming what is missing.
    """
    wanted = [part for part in COMPONENTS if part not in without]
    missing = [part for part in wanted if not (directory / part).is_dir()]
    if missing:
        raise WeightsError(
            f"{name or directory} is not a weights directory: it lacks {', '.join(missing)}. A "
            "checkpoint of the authors must be converted first (python -m kosmosg convert)."
        )


def stored_precision(directory: Path) -> torch.dtype:
    """Tell the precision that the weights of a folder were written in.

    Raises:
        WeightsError: If the folder is none of weights.
    """
    check_layout(directory)
    config = check_config(directory / "kosmosg" / "config.json", "kosmosg")
    name = str(config.get("dtype") or config.get("torch_dtype"))
    return {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(name, torch.float32)


def open_part(name: str, directory: Path, dtype: torch.dtype) -> Any:
    """Open one component of a weights folder; ``None`` if it is an optional one that is not there.

    Raises:
        WeightsError: If it is incomplete, damaged or of another model.
    """
    folder = directory / name
    # Both parts of the safety checker or neither: one alone cannot be asked.
    if name in OPTIONAL_COMPONENTS and not (directory / "safety_checker").is_dir():
        return None
    match name:
        case "kosmosg":
            return load_model(KosmosG, folder, dtype=dtype)
        case "tokenizer":
            return KosmosGTokenizer.from_pretrained(folder)
        case "scheduler":
            return load_scheduler(folder)
        case "feature_extractor":
            config = check_config(folder / "preprocessor_config.json", name)
            try:
                return CLIPImageProcessorPil.from_dict(config)
            except (ValueError, TypeError) as error:
                raise cannot_load(name, folder, error) from error
    return load_component(NETWORKS[name], folder, dtype=dtype)


def write_model_index(directory: Path) -> None:
    """List the components that are there in ``model_index.json``, as diffusers reads it."""
    index: dict[str, object] = {
        "_class_name": "KosmosGPipeline",
        "_diffusers_version": version("diffusers"),
    }
    for name, (library, kind) in {**COMPONENTS, **OPTIONAL_COMPONENTS}.items():
        there = (directory / name).is_dir()
        index[name] = [library, kind] if there else [None, None]
    text = json.dumps(index, indent=2) + "\n"
    (directory / "model_index.json").write_text(text, encoding="utf-8")

"""Where weights are, and what a weights directory looks like."""

import json
import os
from importlib.metadata import version
from pathlib import Path

from kosmosg.errors import WeightsError

ENVIRONMENT_VARIABLE = "KOSMOSG_WEIGHTS"
DEFAULT_DIRECTORY = Path("weights/kosmos-g")
MINIATURE = Path("weights/miniature")
CONTROLNETS = Path("weights/controlnet")

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
    "feature_extractor": ("transformers", "CLIPImageProcessor"),
}


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


def check_layout(directory: Path) -> None:
    """Check that a directory has every component.

    Raises:
        WeightsError: Naming what is missing.
    """
    missing = [name for name in COMPONENTS if not (directory / name).is_dir()]
    if missing:
        raise WeightsError(
            f"{directory} is not a weights directory: it lacks {', '.join(missing)}. A checkpoint "
            "of the authors must be converted first (python -m kosmosg convert)."
        )


def write_model_index(directory: Path) -> None:
    """List the components that are there in ``model_index.json``."""
    index: dict[str, object] = {
        "_class_name": "KosmosGPipeline",
        "_diffusers_version": version("diffusers"),
    }
    for name, (library, kind) in {**COMPONENTS, **OPTIONAL_COMPONENTS}.items():
        there = (directory / name).is_dir()
        index[name] = [library, kind] if there else [None, None]
    text = json.dumps(index, indent=2) + "\n"
    (directory / "model_index.json").write_text(text, encoding="utf-8")

"""Pictures → the maps that ControlNets read: edges, depth, poses, ….

Three need no network (OpenCV), two come from transformers' models, and the rest from the optional
package controlnet-aux. Networks are read from folders, as safetensors or, controlnet-aux's own, by
torch's loader for tensors alone.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from kosmosg.checkpoints.loading import load_component
from kosmosg.diffusion.ade20k import PALETTE
from kosmosg.errors import ControlError, WeightsError

CANNY_THRESHOLDS = (100, 200)  # as in the authors' demo
SHUFFLE_CELL = 256  # pixels over which the flow of a shuffled picture turns
# Read by torch.load: whatever calls it, files hold tensors and nothing else.
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a map is made.

    Attributes:
        folder: With the networks of this kind of map.
        device: For the networks.
    """

    folder: Path
    device: torch.device


def make_map(kind: str, image: Image.Image, size: tuple[int, int], place: Place) -> Image.Image:
    """Derive a control map.

    Args:
        kind: One of ``config.CONTROL_TYPES``.
        image: RGB picture.
        size: Width and height in pixels of the map.
        place: Where the networks are, if it needs any.

    Raises:
        ControlError: If the map cannot be made here.
    """
    resized = image.resize(size, Image.Resampling.LANCZOS)
    made = MAKERS[kind](resized, place)
    return made.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def canny(image: Image.Image, _: Place | None = None) -> Image.Image:
    """Draw the edges white on black."""
    return Image.fromarray(cv2.Canny(np.asarray(image), *CANNY_THRESHOLDS))


def same(image: Image.Image, _: Place) -> Image.Image:
    """Take the picture as it is: InstructPix2Pix's network reads the picture itself."""
    return image


def shuffle(image: Image.Image, _: Place) -> Image.Image:
    """Let the picture flow apart, so that its colours and textures stay, and its layout goes.

    A smooth random flow says for each pixel where its colour comes from, over the whole picture;
    it is the same for pictures of one size.
    """
    width, height = image.size
    random = np.random.default_rng(0)
    cells = max(2, round(height / SHUFFLE_CELL) + 1), max(2, round(width / SHUFFLE_CELL) + 1)

    def flow(side: int) -> np.ndarray:
        coarse = random.standard_normal(cells).astype(np.float32)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        low, high = smooth.min(), smooth.max()
        return (smooth - low) / max(high - low, 1e-6) * (side - 1)

    moved = cv2.remap(np.asarray(image), flow(width), flow(height), cv2.INTER_LINEAR)
    return Image.fromarray(moved)


@torch.inference_mode()
def depth(image: Image.Image, place: Place) -> Image.Image:
    """Estimate depth, near white and far black."""
    from transformers import DepthAnythingForDepthEstimation, DPTImageProcessorPil

    network = _load(DepthAnythingForDepthEstimation, place)
    processor = DPTImageProcessorPil.from_pretrained(place.folder, local_files_only=True)
    inputs = processor(images=image, return_tensors="pt").to(place.device)
    values = network(**inputs).predicted_depth[0].float().cpu().numpy()
    low, high = float(values.min()), float(values.max())
    levels = (values - low) / ((high - low) or 1.0) * 255  # a wall is black
    return Image.fromarray(levels.round().astype(np.uint8))


@torch.inference_mode()
def segmentation(image: Image.Image, place: Place) -> Image.Image:
    """Paint each pixel in the colour of its class in ADE20K."""
    from transformers import SegformerImageProcessorPil, UperNetForSemanticSegmentation

    network = _load(UperNetForSemanticSegmentation, place)
    processor = SegformerImageProcessorPil.from_pretrained(place.folder, local_files_only=True)
    inputs = processor(images=image, return_tensors="pt").to(place.device)
    classes = processor.post_process_semantic_segmentation(
        network(**inputs), target_sizes=[(image.height, image.width)]
    )
    return Image.fromarray(PALETTE[classes[0].cpu().numpy() % len(PALETTE)])


def detector(name: str, **options: Any) -> Callable[[Image.Image, Place], Image.Image]:
    """Make a map by a detector of controlnet-aux.

    Args:
        name: Its class.
        options: What it is called with.
    """

    def make(image: Image.Image, place: Place) -> Image.Image:
        try:
            controlnet_aux = import_module("controlnet_aux")
        # torchvision that does not fit torch raises RuntimeError.
        except (ImportError, RuntimeError) as error:
            raise ControlError(
                f"This control map needs the package controlnet-aux ({error}). Install it (pip "
                'install "kosmosg[control]"), or send the map itself, with '
                "control_preprocess=false."
            ) from error
        _check_folder(place)
        os.environ[WEIGHTS_ONLY] = "1"
        found = getattr(controlnet_aux, name).from_pretrained(str(place.folder))
        found = found.to(place.device)
        return found(image, detect_resolution=min(image.size), output_type="pil", **options)

    return make


MAKERS: dict[str, Callable[[Image.Image, Place], Image.Image]] = {
    "canny": canny,
    "depth": depth,
    "openpose": detector("OpenposeDetector"),
    "scribble": detector("HEDdetector", scribble=True),
    "softedge": detector("PidiNetDetector"),
    "segmentation": segmentation,
    "normal": detector("NormalBaeDetector"),
    "lineart": detector("LineartDetector"),
    "lineart_anime": detector("LineartAnimeDetector"),
    "mlsd": detector("MLSDdetector"),
    "shuffle": shuffle,
    "ip2p": same,
}


def _check_folder(place: Place) -> None:
    if not place.folder.is_dir():
        raise ControlError(
            f"The network that makes this control map is not in {place.folder}. Fetch it: python "
            f"-m kosmosg download controlnet {place.folder.name}. Or send the map itself, with "
            "control_preprocess=false."
        )


def _load(kind: Any, place: Place) -> nn.Module:
    _check_folder(place)
    try:
        network: Any = load_component(kind, place.folder, dtype=torch.float32)
    except WeightsError as error:
        raise ControlError(str(error)) from error
    return network.to(place.device)

"""Images → the maps that ControlNets read: edges, depth, poses, ….

Three need no network (OpenCV), two come from transformers' models, and the rest from the optional
package controlnet-aux. Networks are read from folders, as safetensors or, controlnet-aux's own, by
``torch.load``, which since torch 2.6 takes tensors and nothing else.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import nn

from kosmosg.checkpoints.loading import load_component
from kosmosg.errors import ControlError, WeightsError
from kosmosg.prompts.colours import to_rgb
from kosmosg.prompts.images import pool
from kosmosg.utils.files import reason

CANNY_THRESHOLDS = (100, 200)  # as in the authors' demo
SHUFFLE_CELL = 256  # pixels over which the flow of a shuffled image turns
# The colours of ADE20K's 150 classes (wall, building, sky, …), as the data set has them: RGB, six
# digits a class.
_DIGITS = (
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33"
    "ff06528fff8cccff04ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff"
    "08ffd607ffe0ffb8060aff47ff290a07ffffe0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ff"
    "eb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe00099ff000000ffff470000ebff00adff1f00ff"
    "0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff000052ff00ff2900ffad"
    "0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa"
    "8500ff00ff5cb800ffff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3"
    "ffcc00ff008f00ffeb85ff00ff00ebf500ffff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff"
    "00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cffb8ff000085ffffd60019c2c266ff005c00ff"
)
PALETTE: UInt8[np.ndarray, "150 3"] = np.frombuffer(bytes.fromhex(_DIGITS), np.uint8).reshape(-1, 3)


# What lines of a map are called that is black elsewhere; the others fill the whole map.
FEATURES = {
    "canny": "edge",
    "scribble": "line",
    "softedge": "edge",
    "lineart": "line",
    "lineart_anime": "line",
    "mlsd": "straight line",
    "openpose": "person",
    "depth": "difference in depth",
}
BLACK_OR_WHITE = ("canny", "scribble", "mlsd")
DARK = 16  # below, of 255, there is nothing in a map
MOST_WHITE = 2 / 3  # of a map of lines
MapMaker = Callable[[Image.Image], Image.Image]  # RGB in, a map of any mode and size out


def open_map_maker(kind: str, folder: Path, device: torch.device) -> MapMaker:
    """Make ready what derives maps of a kind, its networks loaded.

    Args:
        kind: One of ``settings.CONTROL_TYPES``.
        folder: With the networks of this kind of map, if it needs any.
        device: For the networks.

    Raises:
        ControlError: If the networks are missing or damaged, or a package is.
    """
    if kind in WITHOUT_NETWORKS:
        return WITHOUT_NETWORKS[kind]
    if not folder.is_dir():
        raise ControlError(
            f"The network that makes this control map is not in {folder}. Fetch it: python -m "
            f"kosmosg download controlnet {folder.name}. Or send the map itself, with "
            "control_preprocess=false."
        )
    return WITH_NETWORKS[kind](folder, device)


def make_map(kind: str, maker: MapMaker, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Derive a control map of a size, in pixels, from an RGB image.

    Raises:
        ControlError: If nothing was found in the image.
    """
    made = maker(image.resize(size, Image.Resampling.LANCZOS)).convert("RGB")
    made = resize_map(kind, made, size)
    if is_empty(kind, made):
        raise ControlError(
            f"No {FEATURES[kind]} was found in control_image, so it would fix nothing. Give one "
            "that is brighter or has more contrast, or another control_type, or none."
        )
    return made


def read_map(kind: str, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Take a map that is ready, and bring it to a size in pixels.

    Args:
        kind: One of ``settings.CONTROL_TYPES``.
        image: RGB, or RGBA: lines on a transparent ground.
        size: Width and height.

    Raises:
        ControlError: If it cannot be a map of this kind.
    """
    if kind in ("normal", "segmentation") and image.mode == "RGBA":
        raise ControlError(
            f"control_image has transparent parts, and a map of kind '{kind}' has a colour "
            "everywhere. Save it without transparency."
        )
    found = resize_map(kind, to_rgb(image, "black" if kind in FEATURES else "white"), size)
    if is_empty(kind, found):
        told = " on its transparent ground" if image.mode == "RGBA" else ""
        raise ControlError(
            f"control_image has no {FEATURES[kind]}{told}: as a map of kind '{kind}' it is all "
            "black. Give white lines on black, or have the map derived (control_preprocess)."
        )
    if kind in FEATURES and kind != "depth":
        white = (np.asarray(found.convert("L")) >= 128).mean()
        if white > MOST_WHITE:
            raise ControlError(
                f"control_image is white to {white:.0%}; a map of kind '{kind}' is black where "
                "there is nothing. Invert it, or have the map derived (control_preprocess)."
            )
    return found


def resize_map(kind: str, image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bring an RGB map to a size so that what counts in it stays.

    Lines keep their brightness where they get thinner than a pixel: the average of what falls into
    a pixel is raised by how much the map shrinks, up to the brightest of it.
    """
    if image.size == size:
        return image
    if kind not in FEATURES or kind == "depth":
        labels = kind == "segmentation"  # between two of them there is nothing to mean
        how = Image.Resampling.NEAREST if labels else Image.Resampling.LANCZOS
        return image.resize(size, how)
    values = np.asarray(image, dtype=np.float32)
    brightest = pool(values, size, np.maximum)
    covered = pool(np.ones((*values.shape[:2], 1), np.float32), size, np.add)
    average = pool(values, size, np.add) / covered
    times = max(1.0, image.width / size[0], image.height / size[1])
    raised = np.minimum(average * times, brightest)
    if kind in BLACK_OR_WHITE:
        raised = np.where(raised >= 128, 255, 0)
    return Image.fromarray(raised.round().astype(np.uint8))


def is_empty(kind: str, image: Image.Image) -> bool:
    """Tell whether an RGB map of a kind that is black where there is nothing is so all over."""
    return kind in FEATURES and int(np.asarray(image).max()) < DARK


# ------------------------------------------------------------------ without networks


def canny(image: Image.Image) -> Image.Image:
    """Draw the edges white on black."""
    return Image.fromarray(cv2.Canny(np.asarray(image), *CANNY_THRESHOLDS))


def same(image: Image.Image) -> Image.Image:
    """Take the image as it is: InstructPix2Pix's network reads the image itself."""
    return image


def shuffle(image: Image.Image) -> Image.Image:
    """Let the image flow apart, so that its colours and textures stay, and its layout goes.

    A smooth random flow says for each pixel where its colour comes from, over the whole image;
    it is the same for images of one size.
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


WITHOUT_NETWORKS: dict[str, MapMaker] = {"canny": canny, "shuffle": shuffle, "ip2p": same}

# ------------------------------------------------------------------ with networks


def open_depth(folder: Path, device: torch.device) -> MapMaker:
    """Depth, near white and far black."""
    from transformers import DepthAnythingForDepthEstimation, DPTImageProcessorPil

    network = _load(DepthAnythingForDepthEstimation, folder, device)
    processor = DPTImageProcessorPil.from_pretrained(folder, local_files_only=True)

    @torch.inference_mode()
    def depth(image: Image.Image) -> Image.Image:
        inputs = processor(images=image, return_tensors="pt").to(device)
        values = network(**inputs).predicted_depth[0].float().cpu().numpy()
        low, high = float(values.min()), float(values.max())
        levels = (values - low) / ((high - low) or 1.0) * 255  # a wall is black
        return Image.fromarray(levels.round().astype(np.uint8))

    return depth


def open_segmentation(folder: Path, device: torch.device) -> MapMaker:
    """Each pixel in the colour of its class in ADE20K."""
    from transformers import SegformerImageProcessorPil, UperNetForSemanticSegmentation

    network = _load(UperNetForSemanticSegmentation, folder, device)
    processor = SegformerImageProcessorPil.from_pretrained(folder, local_files_only=True)

    @torch.inference_mode()
    def segmentation(image: Image.Image) -> Image.Image:
        inputs = processor(images=image, return_tensors="pt").to(device)
        classes = processor.post_process_semantic_segmentation(
            network(**inputs), target_sizes=[(image.height, image.width)]
        )
        return Image.fromarray(PALETTE[classes[0].cpu().numpy() % len(PALETTE)])

    return segmentation


def detector(name: str, **options: Any) -> Callable[[Path, torch.device], MapMaker]:
    """Make maps by a detector of controlnet-aux.

    Args:
        name: Its class.
        options: What it is called with.
    """

    def open_detector(folder: Path, device: torch.device) -> MapMaker:
        try:
            controlnet_aux = import_module("controlnet_aux")
        # torchvision that does not fit torch raises RuntimeError.
        except (ImportError, RuntimeError) as error:
            raise ControlError(
                f"This control map needs the package controlnet-aux ({error}). Install it (pip "
                "install -e '.[control]'), or send the map itself, with control_preprocess=false."
            ) from error
        try:
            found = getattr(controlnet_aux, name).from_pretrained(str(folder)).to(device)
        except Exception as error:
            # A missing or damaged file: OSError, UnpicklingError, KeyError, RuntimeError, ….
            raise ControlError(
                f"The network that makes this control map cannot be loaded from {folder} "
                f"({reason(error)}). Remove the folder and fetch it again: python -m kosmosg "
                f"download controlnet {folder.name}"
            ) from error

        def detect(image: Image.Image) -> Image.Image:
            return found(image, detect_resolution=min(image.size), output_type="pil", **options)

        return detect

    return open_detector


WITH_NETWORKS: dict[str, Callable[[Path, torch.device], MapMaker]] = {
    "depth": open_depth,
    "openpose": detector("OpenposeDetector"),
    "scribble": detector("HEDdetector", scribble=True),
    "softedge": detector("PidiNetDetector"),
    "segmentation": open_segmentation,
    "normal": detector("NormalBaeDetector"),
    "lineart": detector("LineartDetector"),
    "lineart_anime": detector("LineartAnimeDetector"),
    "mlsd": detector("MLSDdetector"),
}


def _load(kind: Any, folder: Path, device: torch.device) -> nn.Module:
    try:
        network: Any = load_component(kind, folder, dtype=torch.float32)
    except WeightsError as error:
        raise ControlError(str(error)) from error
    return network.to(device)

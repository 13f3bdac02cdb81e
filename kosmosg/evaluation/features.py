"""Images and texts → features, by networks given as a folder, a file or a Hub id.

The three of the paper's scores (section 4.2): DINO's ViT-S/16, CLIP's ViT-B/32, and FID's
Inception. Nothing but tensors is taken from a file.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, ViTModel

from kosmosg.checkpoints.pretrained import load_preprocessor, load_pretrained
from kosmosg.errors import WeightsError
from kosmosg.evaluation.inception import SUFFIXES, InceptionExtractor
from kosmosg.evaluation.protocol import in_batches
from kosmosg.prompts.images import resize_and_crop

# As DINO was trained and the paper's scripts use it: 256 pixels, of which 224 are kept.
DINO_SCALED, DINO_KEPT = 256, 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 32  # images in a network at once
THREADS = 8  # that read images while a network waits


class FeatureExtractor(Protocol):
    """Whatever turns images into features.

    Attributes:
        dim: How many.
    """

    dim: int

    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch dim"]:
        """Compute features of RGB images of any size."""
        ...


class DinoExtractor:
    """The class token of a ViT, behind its last norm."""

    def __init__(self, source: str | Path, device: torch.device):
        self.network = _load(ViTModel, source, add_pooling_layer=False).to(device)
        self.dim: int = self.network.config.hidden_size

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch dim"]:
        """Compute features of images."""
        side: int = self.network.config.image_size
        pixels = torch.from_numpy(np.stack([dino_pixels(image, side) for image in images]))
        return self.network(pixels.to(self.network.device)).last_hidden_state[:, 0]


class ClipExtractor:
    """CLIP's projections of images and texts, into the same space."""

    def __init__(self, source: str | Path, device: torch.device):
        self.network = _load(CLIPModel, source).to(device)
        self.tokenizer = _load_tokenizer(source)
        side = self.network.config.vision_config.image_size
        self.processor = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        self.dim: int = self.network.config.projection_dim

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch dim"]:
        """Compute features of images."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return self.network.get_image_features(pixels.to(self.network.device)).pooler_output

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """Compute features of texts, of which CLIP reads the first 77 tokens."""
        found = []
        for part in in_batches(texts, BATCH):
            tokens: Any = self.tokenizer(
                list(part),
                padding=True,
                truncation=True,
                max_length=self.network.config.text_config.max_position_embeddings,
                return_tensors="pt",
            )
            found.append(
                self.network.get_text_features(**tokens.to(self.network.device)).pooler_output
            )
        return torch.cat(found)


def distance_extractor(
    source: str, device: torch.device, *, old_resizing: bool
) -> InceptionExtractor | DinoExtractor:
    """Open the features of a Fréchet distance: Inception from a file, a ViT from elsewhere.

    Raises:
        WeightsError: If it cannot be had.
    """
    if Path(source).suffix in SUFFIXES:
        return InceptionExtractor(Path(source), device, old_resizing=old_resizing)
    return DinoExtractor(source, device)


def dino_pixels(image: Image.Image, side: int) -> Float32[np.ndarray, "3 side side"]:
    """Scale bicubically, crop and normalise an image as DINO's authors do.

    Args:
        image: RGB, of any size.
        side: Of what is kept; the shorter side of what it is cut from is 8/7 of it.
    """
    scaled = side * DINO_SCALED // DINO_KEPT
    crop = resize_and_crop(image, scaled, Image.Resampling.BICUBIC, kept=side)
    values = np.asarray(crop, dtype=np.float32).transpose(2, 0, 1) / 255
    mean, deviation = (
        np.array(each, dtype=np.float32)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (values - mean) / deviation


def extract(
    count: int,
    read: Callable[[int], Image.Image],
    extractor: FeatureExtractor,
    processes: PartialState,
    what: str = "features",
) -> Float[Tensor, "count dim"]:
    """Compute the features of many images, each process every n-th batch.

    Batches are the same on any number of processes, and so are the features.

    Args:
        count: How many images.
        read: Opens one of them.
        extractor: The network.
        processes: Those of the run; all get all features.
        what: What to call this in the progress.
    """
    rows = torch.zeros(count, extractor.dim, device=processes.device)
    share = in_batches(range(count), BATCH)[processes.process_index :: processes.num_processes]
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(
            desc=what,
            unit="image",
            total=sum(map(len, share)),
            disable=not processes.is_main_process,
        ) as bar,
    ):
        for part in share:
            features = extractor(list(pool.map(read, part)))
            rows[part[0] : part[-1] + 1] = features.to(rows.device, rows.dtype)
            bar.update(len(part))
    # Each row is zero but in one process, so that adding up rounds nothing.
    summed: Any = reduce(rows, "sum")
    return summed.cpu()


def _load(kind: Any, source: str | Path, **options: Any) -> Any:
    return load_pretrained(kind, source, dtype=torch.float32, pickled=True, **options)


def _load_tokenizer(source: str | Path) -> CLIPTokenizer:
    folder = Path(source)
    names = ("tokenizer.json", "vocab.json")
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        # Without files the library gives a tokenizer that knows nothing.
        raise WeightsError(f"There is no CLIP tokenizer in {source}.")
    return load_preprocessor(CLIPTokenizer, source)

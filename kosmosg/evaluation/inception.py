"""FID's features: the Inception network, and how images come to the size that it takes.

It is the one that TensorFlow's authors published in 2015, which differs from later ones: averages
leave padding out, and the last block takes a maximum (Heusel et al., arXiv 1706.08500; the files
are ``weights-inception-2015-12-05-6726825d.pth`` of torch-fidelity and
``pt_inception-2015-12-05-6726825d.pth`` of pytorch-fid, which hold the same tensors).

FID depends on the resizing. Inception's own looks at four neighbours of every point, however much
smaller the result, so an image of 512 × 512 loses detail to aliasing that one of 256 × 256 does
not; Pillow's filters cover all pixels that fall into a point (Parmar et al., "On Aliased Resizing
and Surprising Subtleties in GAN Evaluation", arXiv 2104.11222).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from kosmosg.checkpoints.loading import check_finite
from kosmosg.errors import WeightsError

SIDE = 299  # of the images it takes, in pixels
FEATURES = 2048
SUFFIXES = (".pth", ".pt", ".safetensors")  # of files with its weights
FLAT, TALL = (1, 7), (7, 1)  # kernels
CLASSIFIER = "fc."  # of no use here
DAMAGE = (OSError, RuntimeError, EOFError, AttributeError, TypeError)  # what a bad file leads to
REMEDY = (
    "It must be the file with the weights of FID's Inception, such as torch-fidelity's "
    "weights-inception-2015-12-05-6726825d.pth, or the same as safetensors."
)


class InceptionExtractor:
    """FID's features.

    Args:
        file: The network's weights.
        device: Where to.
        old_resizing: As TensorFlow 1 scales images, without smoothing.
    """

    dim = FEATURES

    def __init__(self, file: Path, device: torch.device, *, old_resizing: bool):
        self.network = load_inception(file).to(device)
        self._device, self._old_resizing = device, old_resizing

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch dim"]:
        """Compute features of images."""
        return self.network(torch.cat([self._pixels(image) for image in images]))

    def _pixels(self, image: Image.Image) -> Float[Tensor, "1 3 299 299"]:
        if not self._old_resizing:
            return torch.from_numpy(smooth(image)).to(self._device)[None]
        values = np.asarray(image.convert("RGB"), dtype=np.float32).transpose(2, 0, 1)
        return like_tensorflow(torch.from_numpy(values.copy()).to(self._device)[None])


def smooth(image: Image.Image, side: int = SIDE) -> Float32[np.ndarray, "3 side side"]:
    """Scale to a square with Pillow's bicubic filter, each channel in floating point.

    Returns:
        Values from 0 to 255, not rounded.
    """
    channels = [
        Image.fromarray(np.asarray(channel, dtype=np.float32)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        for channel in image.convert("RGB").split()
    ]
    return np.stack([np.asarray(channel) for channel in channels]).clip(0, 255)


def like_tensorflow(
    pixels: Float[Tensor, "batch channels height width"], side: int = SIDE
) -> Float[Tensor, "batch channels side side"]:
    """Scale to a square as TensorFlow 1 does, bilinear between four neighbours.

    Point n of the result lies at n · size / side of the image, so the corners at the top left
    coincide, and those at the bottom right do not.
    """
    for axis in (-2, -1):
        size = pixels.shape[axis]
        # In float32, like there: at some sizes a point falls onto a pixel that way, or just not.
        places = torch.arange(side, device=pixels.device, dtype=torch.float32) * (size / side)
        lower = places.long().clamp(max=size - 1)
        upper = (lower + 1).clamp(max=size - 1)
        weight = (places - lower).to(pixels.dtype)
        weight = weight[:, None] if axis == -2 else weight
        below, above = pixels.index_select(axis, lower), pixels.index_select(axis, upper)
        pixels = below + (above - below) * weight
    return pixels


@dataclass(frozen=True)
class LayerSizes:
    """A convolution with its norm: the name of its parameters, channels out, kernel, stride."""

    name: str
    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1


# Layer by layer; the last may be two that look at the same.
Branch = Sequence[tuple[LayerSizes, ...]]


class Convolution(nn.Module):
    """Convolution, batch norm, rectifier."""

    def __init__(
        self, channels: int, out: int, kernel: int | tuple[int, int], stride: int, padding: bool
    ):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (height // 2, width // 2) if padding else 0
        self.conv = nn.Conv2d(channels, out, (height, width), stride, around, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out rows columns"]:
        """Apply it."""
        return functional.relu(self.bn(self.conv(pixels)))


class Block(nn.Module):
    """Branches beside each other, whose channels are joined; the last one pools.

    Args:
        channels: Of the input.
        branches: All but the last.
        pooled: Channels of the convolution behind the pooling; 0 if there is none, and then the
            block halves the sides.
        maximum: Pool by the maximum, not the mean.
    """

    def __init__(
        self, channels: int, branches: Sequence[Branch], pooled: int, *, maximum: bool = False
    ):
        super().__init__()
        self._branches, self._pooled, self._maximum = branches, pooled, maximum
        self.channels = pooled or channels
        for branch in branches:
            before = channels
            for layers in branch:
                for each in layers:
                    padding = each.stride == 1
                    layer = Convolution(before, each.channels, each.kernel, each.stride, padding)
                    self.add_module(each.name, layer)
                before = sum(each.channels for each in layers)
            self.channels += before
        if pooled:
            self.branch_pool = Convolution(channels, pooled, 1, 1, True)

    def forward(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out rows columns"]:
        """Join what the branches make of the same input."""
        outputs = [self._follow(branch, pixels) for branch in self._branches]
        return torch.cat([*outputs, self._pool(pixels)], dim=1)

    def _follow(self, branch: Branch, pixels: Tensor) -> Tensor:
        for layers in branch:
            pixels = torch.cat([self.get_submodule(each.name)(pixels) for each in layers], dim=1)
        return pixels

    def _pool(self, pixels: Tensor) -> Tensor:
        if not self._pooled:
            return functional.max_pool2d(pixels, 3, stride=2)
        if self._maximum:
            pixels = functional.max_pool2d(pixels, 3, stride=1, padding=1)
        else:
            pixels = functional.avg_pool2d(pixels, 3, 1, padding=1, count_include_pad=False)
        return self.branch_pool(pixels)


class Inception(nn.Module):
    """Images to 2048 features."""

    def __init__(self):
        super().__init__()
        stem = {
            "Conv2d_1a_3x3": Convolution(3, 32, 3, 2, False),
            "Conv2d_2a_3x3": Convolution(32, 32, 3, 1, False),
            "Conv2d_2b_3x3": Convolution(32, 64, 3, 1, True),
            "MaxPool_1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": Convolution(64, 80, 1, 1, False),
            "Conv2d_4a_3x3": Convolution(80, 192, 3, 1, False),
            "MaxPool_2": nn.MaxPool2d(3, 2),
        }
        for name, module in stem.items():
            self.add_module(name, module)
        channels = 192
        for name, (branches, pooled, maximum) in _blocks().items():
            block = Block(channels, branches, pooled, maximum=maximum)
            self.add_module(f"Mixed_{name}", block)
            channels = block.channels
        assert channels == FEATURES

    def forward(
        self, pixels: Float[Tensor, "batch 3 299 299"]
    ) -> Float[Tensor, "batch {FEATURES}"]:
        """Compute the features.

        Args:
            pixels: Values from 0 to 255, RGB.
        """
        states = (pixels - 128) / 128
        for module in self.children():
            states = module(states)
        return states.mean(dim=(2, 3))


def load_inception(file: Path) -> Inception:
    """Load the network's weights; of a ``.pth`` file, which is a pickle, tensors alone.

    Raises:
        WeightsError: If the file is missing, damaged, of another network, or holds more.
    """
    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER)}
        network = Inception()
        network.load_state_dict(kept, strict=True)
    except (*DAMAGE, SafetensorError, UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{file} cannot be loaded ({reason[:300]}). {REMEDY}") from error
    check_finite(kept, file.name)
    return network.eval().requires_grad_(False)


def _blocks() -> dict[str, tuple[Sequence[Branch], int, bool]]:
    """List branches, channels of the pooling branch, and whether it takes a maximum."""
    wide = [
        _branch("branch1x1", (64,)),
        _branch("branch5x5", (48,), (64, 5)),
        _branch("branch3x3dbl", (64,), (96, 3), (96, 3)),
    ]
    halving = [
        _branch("branch3x3", (384, 3, 2)),
        _branch("branch3x3dbl", (64,), (96, 3), (96, 3, 2)),
    ]
    halving_again = [
        _branch("branch3x3", (192,), (320, 3, 2)),
        _branch("branch7x7x3", (192,), (192, FLAT), (192, TALL), (192, 3, 2)),
    ]
    forked = [
        _branch("branch1x1", (320,)),
        [*_branch("branch3x3_1", (384,)), _fork("branch3x3_2")],
        [*_branch("branch3x3dbl", (448,), (384, 3)), _fork("branch3x3dbl_3")],
    ]
    return {
        "5b": (wide, 32, False),
        "5c": (wide, 64, False),
        "5d": (wide, 64, False),
        "6a": (halving, 0, True),
        "6b": (_long(128), 192, False),
        "6c": (_long(160), 192, False),
        "6d": (_long(160), 192, False),
        "6e": (_long(192), 192, False),
        "7a": (halving_again, 0, True),
        "7b": (forked, 192, False),
        "7c": (forked, 192, True),
    }


def _long(channels: int) -> Sequence[Branch]:
    flat, tall = (channels, FLAT), (channels, TALL)
    return [
        _branch("branch1x1", (192,)),
        _branch("branch7x7", (channels,), flat, (192, TALL)),
        _branch("branch7x7dbl", (channels,), tall, flat, tall, (192, FLAT)),
    ]


def _branch(name: str, *layers: tuple) -> list[tuple[LayerSizes, ...]]:
    """Name the layers of a branch, by numbers if there are several."""
    names = [name] if len(layers) == 1 else [f"{name}_{n}" for n in range(1, len(layers) + 1)]
    return [(LayerSizes(name, *each),) for name, each in zip(names, layers, strict=True)]


def _fork(name: str) -> tuple[LayerSizes, ...]:
    return LayerSizes(f"{name}a", 384, (1, 3)), LayerSizes(f"{name}b", 384, (3, 1))

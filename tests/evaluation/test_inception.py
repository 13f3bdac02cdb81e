"""FID's network, against torch-fidelity 0.4.0 on the same made-up weights and image; resizing."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from kosmosg.errors import WeightsError
from kosmosg.evaluation.inception import (
    Inception,
    InceptionExtractor,
    like_tensorflow,
    load_inception,
    smooth,
)

# Mean, deviation, norm and every 256th of its features.
MEAN, DEVIATION, NORM = 0.1512345, 0.2051109, 11.5308231
SOME = [0.5593488, 0.0437182, 0.2281744, 0.5704225, 0.1272528, 0.1530302, 0.4399754, 0.3751409]
CPU = torch.device("cpu")


def make_up_weights() -> dict[str, Tensor]:
    """Draw weights that let an image through, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, tensor in sorted(Inception().state_dict().items()):
        if name.endswith("num_batches_tracked"):
            made[name] = tensor
            continue
        values = torch.randn(tensor.shape, generator=generator)
        if name.endswith("conv.weight"):
            made[name] = values * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            made[name] = 1 + values.abs() * 0.2
        elif name.endswith("bn.weight"):
            made[name] = 1 + values * 0.1
        else:
            made[name] = values * 0.1
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the public ones are, with the classifier."""
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({**make_up_weights(), "fc.weight": torch.zeros(1008, 2048)}, file)
    return file


def test_features_are_those_of_torch_fidelity(weights: Path) -> None:
    numbers = torch.arange(3 * 128 * 96)
    pixels = (numbers * 7919 + numbers // 96 * 31) % 256
    image = pixels.reshape(3, 128, 96).to(torch.uint8).permute(1, 2, 0).numpy()
    extractor = InceptionExtractor(weights, CPU, old_resizing=True)
    found = extractor([Image.fromarray(image)])[0]
    assert found.shape == (2048,)
    assert found[::256].tolist() == pytest.approx(SOME, abs=2e-5)
    measured = [float(each) for each in (found.mean(), found.std(), found.norm())]
    assert measured == pytest.approx([MEAN, DEVIATION, NORM], rel=1e-5)
    smooth = InceptionExtractor(weights, CPU, old_resizing=False)([Image.fromarray(image)])[0]
    assert (smooth - found).abs().max() > 1e-3


def test_safetensors_hold_the_same(weights: Path, tmp_path: Path) -> None:
    save_file(make_up_weights(), tmp_path / "weights.safetensors")
    networks = [load_inception(file) for file in (weights, tmp_path / "weights.safetensors")]
    states = [network.state_dict() for network in networks]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not networks[0].training


class Mischief:
    """A pickle that does something when it is opened."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def test_no_pickle_is_executed(tmp_path: Path) -> None:
    torch.save({"conv.weight": Mischief(tmp_path / "done")}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match=r"bad\.pth cannot be loaded"):
        load_inception(tmp_path / "bad.pth")
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.pth", None),
        ("empty.pth", b""),
        ("garbled.safetensors", b"x" * 100),
        ("another.pth", {"weight": torch.zeros(2)}),
        ("list.pth", [torch.zeros(2)]),
    ],
)
def test_files_of_another_kind(tmp_path: Path, name: str, content: Any) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(WeightsError, match="the file with the weights of FID's Inception"):
        load_inception(tmp_path / name)


def test_like_tensorflow_by_hand() -> None:
    """Points 0, 1/2, 1 and 3/2 of two pixels, of which the last has no right neighbour."""
    pixels = torch.tensor([[[[0.0, 8.0], [16.0, 32.0]]]])
    rows = [[0, 4, 8, 8], [8, 14, 20, 20], [16, 24, 32, 32], [16, 24, 32, 32]]
    assert like_tensorflow(pixels, 4)[0, 0].tolist() == rows
    assert like_tensorflow(pixels, 1)[0, 0].tolist() == [[0]]


def test_another_shape_becomes_a_square() -> None:
    pixels = torch.arange(12.0).reshape(1, 1, 3, 4)
    found = like_tensorflow(pixels, 6)
    assert found.shape == (1, 1, 6, 6)
    assert found[0, 0, :, 0].tolist() == [0, 2, 4, 6, 8, 8]


def test_only_the_smooth_one_sees_all_pixels() -> None:
    """Stripes of one pixel are grey from afar; between neighbours they come out as wide waves."""
    stripes = np.zeros((128, 128, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    found = smooth(Image.fromarray(stripes), 33)
    assert found.shape == (3, 33, 33)
    # At the edges the filter is cut off.
    assert np.abs(found[:, :, 2:-2] - 127.5).max() < 8
    old = like_tensorflow(torch.from_numpy(stripes.transpose(2, 0, 1)).float()[None], 33)
    assert old.min() < 10
    assert old.max() > 245


def test_smooth_keeps_fractions_and_bounds() -> None:
    edge = np.zeros((8, 8, 3), dtype=np.uint8)
    edge[:, 4:] = 255
    found = smooth(Image.fromarray(edge), 5)
    assert (found.min(), found.max()) == (0, 255)
    assert (found != found.round()).any()
    plain = smooth(Image.new("RGB", (50, 30), (10, 20, 30)), 7)
    for channel, value in zip(plain, (10, 20, 30), strict=True):
        assert channel == pytest.approx(value, abs=1e-4)

"""Opening one component of a weights folder; damaged ones are in ``serving/test_setup``."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from kosmosg.checkpoints.loading import find_variant, load_component
from tests import tiny

NAME = "diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("files", "variant"),
    [
        ([], None),
        (["model.safetensors"], None),
        (["model.safetensors", "model.fp16.safetensors"], None),
        ([f"{NAME}.fp16.safetensors", "config.json"], "fp16"),
        ([f"{NAME}.non_ema.safetensors"], "non_ema"),
        (
            ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"],
            "fp16",
        ),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], None),
    ],
)
def test_which_variant_a_folder_has(tmp_path: Path, files: list[str], variant: str | None) -> None:
    for file in files:
        (tmp_path / file).touch()
    assert find_variant(tmp_path) == variant


def test_files_of_a_variant_are_opened(tmp_path: Path) -> None:
    unet = tiny.make_random_decoder(tiny.SIZES["aligner"]["dim"]).unet
    unet.save_pretrained(tmp_path / "unet", variant="fp16")
    assert (tmp_path / "unet" / f"{NAME}.fp16.safetensors").is_file()
    found = load_component(UNet2DConditionModel, tmp_path / "unet", dtype=torch.float32)
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, unet.state_dict()[name])

"""At zero strength every technique is plain text to image, on the authors' small decoder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kosmosg import Control, InitImage, KosmosGPipeline, LoRA
from kosmosg.diffusion.control import ControlNets
from tests.diffusion import loras
from tests.diffusion.generation import difference, generate, noise_image
from tests.diffusion.test_control import write_controlnet
from tests.reference import convert_golden

SAMPLERS = ("DPMSolverMultistep", "DDIM", "PNDM")  # those of the published numbers


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> KosmosGPipeline:
    weights = convert_golden(tmp_path_factory.mktemp("golden"))
    return KosmosGPipeline.from_pretrained(weights, torch_dtype=torch.float32)


@pytest.fixture(scope="module")
def techniques(
    pipeline: KosmosGPipeline, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Each technique at zero strength, and all of them together."""
    folder = tmp_path_factory.mktemp("techniques")
    unet = pipeline.unet
    # This VAE halves the sides, which a ControlNet must do as well.
    write_controlnet(folder / "canny", unet, conditioning_embedding_out_channels=[8, 16])
    pipeline.controlnets = ControlNets([folder])
    layers = [name for name, _ in unet.named_modules() if name.endswith(("to_k", "to_v"))]
    file = loras.write(folder / "x.safetensors", loras.kohya(loras.make_factors(unet, layers)))
    side = pipeline.default_size
    image: Image.Image = noise_image(side, side)
    each = {
        "lora": {"lora": LoRA(file=file, scale=0)},
        "control": {"control": Control(kind="canny", image=image, scale=0)},
        "image to image": {"init": InitImage(image=image, strength=1)},
    }
    each["all"] = {name: value for one in each.values() for name, value in one.items()}
    return each


@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("technique", ["lora", "control", "image to image", "all"])
@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
def test_zero_strength(
    pipeline: KosmosGPipeline,
    techniques: dict[str, dict[str, Any]],
    technique: str,
    scheduler: str,
    guidance_scale: float,
) -> None:
    settings = {"scheduler": scheduler, "guidance_scale": guidance_scale}
    plain = generate(pipeline, **settings)
    assert difference(plain, generate(pipeline, **settings, **techniques[technique])) == 0


def test_what_the_techniques_would_do(
    pipeline: KosmosGPipeline, techniques: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Otherwise the equality above would say nothing."""
    plain = generate(pipeline)
    lora, control, init = (
        techniques[name][key]
        for name, key in (("lora", "lora"), ("control", "control"), ("image to image", "init"))
    )
    changes: list[dict[str, Any]] = [
        {"lora": LoRA(file=lora.file, scale=1)},
        {"control": Control(kind="canny", image=control.image, scale=1)},
        {"init": InitImage(image=init.image, strength=0.5)},
    ]
    for changed in changes:
        assert difference(plain, generate(pipeline, **changed)) > 0

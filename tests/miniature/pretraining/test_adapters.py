"""A LoRA and a ControlNet for a decoder, from the command line to an image."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel

from kosmosg import Control, KosmosGPipeline, LoRA
from kosmosg.checkpoints.stable_diffusion import (
    SD15_SCHEDULER,
    encode_captions,
    load_clip_tokenizer,
)
from kosmosg.diffusion.lora import read_lora
from kosmosg.training.noise import Diffusion
from kosmosg.training.stage import trainable
from miniature.pretraining.adapters import ControlNetStage, LoraStage
from miniature.pretraining.unet import DecoderStage, LatentExample
from tests.training.logs import read_log
from tests.training.world import IMAGE, World, fails, train

LORA_FILE = "pytorch_lora_weights.safetensors"


def parts(world: World) -> tuple[Any, ...]:
    folder = world.folder / "decoder" / "weights"
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet")
    encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
    null_ids = encode_captions(load_clip_tokenizer(folder / "tokenizer"), [""])[0]
    return unet, encoder, null_ids, Diffusion(SD15_SCHEDULER, 0.7)


def example(seed: int) -> LatentExample:
    draw = torch.Generator().manual_seed(seed)
    return LatentExample(
        mean=torch.randn(4, 8, 8, generator=draw).half(),
        deviation=torch.rand(4, 8, 8, generator=draw).half(),
        ids=torch.randint(0, 400, (32,), generator=draw),
        seed=seed,
        control_map=torch.randint(0, 256, (3, 64, 64), generator=draw, dtype=torch.uint8),
    )


def decoder(world: World) -> list[Any]:
    return ["--decoder", world.folder / "decoder" / "weights"]


# ------------------------------------------------------------------ stages


def test_what_is_trained(world: World) -> None:
    lora, control = LoraStage(*parts(world), rank=2), ControlNetStage(*parts(world))
    assert all("lora" in name for name in trainable(lora))
    assert {name.split(".")[0] for name in trainable(control)} == {"controlnet"}
    assert len(trainable(control)) == len(list(control.controlnet.parameters()))


def test_both_begin_as_the_decoder(world: World) -> None:
    """The corrections' second factors, and the ControlNet's last layers, are zero."""
    samples = [example(seed) for seed in range(8)]
    plain, lora, control = (
        kind(*parts(world), **options).eval()
        for kind, options in ((DecoderStage, {}), (LoraStage, {"rank": 2}), (ControlNetStage, {}))
    )
    with torch.no_grad():
        wanted = plain.losses(plain.collate(samples))["loss"]
        for stage in (lora, control):
            found = stage.losses(stage.collate(samples))["loss"]
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_the_map_reaches_the_loss(world: World) -> None:
    stage = ControlNetStage(*parts(world)).eval()
    for parameter in stage.controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    one = stage.collate([example(1)])
    with torch.no_grad():
        before = stage.losses(one)["loss"]
        assert one.control_maps is not None
        one.control_maps[:] = 255 - one.control_maps
        assert stage.losses(one)["loss"] != before


# ------------------------------------------------------------------ the command line


def test_a_lora_that_the_pipeline_takes(world: World, tmp_path: Path) -> None:
    result = train("lora", tmp_path / "lora", *decoder(world), *world.data("neon"), "--rank", 2)
    assert len(read_log(tmp_path / "lora")["loss"]) == 3
    unet: Any = UNet2DConditionModel.from_pretrained(decoder(world)[1] / "unet")
    factors, _ = read_lora(LoRA(file=result / LORA_FILE), unet)
    ups = [value for key, value in factors.items() if "lora_B" in key]
    assert len(ups) == 8 * sum("attn1" in name and "to_q" in name for name in names(unet))
    assert any(value.any() for value in ups)
    pipe = KosmosGPipeline.from_pretrained(world.start)
    settings: dict[str, Any] = {"num_inference_steps": 2, "seed": 1}
    plain = pipe("a cat", **settings).images[0]
    strong = pipe("a cat", lora=LoRA(file=result / LORA_FILE, scale=10), **settings).images[0]
    assert plain.tobytes() != strong.tobytes()


def names(unet: UNet2DConditionModel) -> list[str]:
    return [name for name, _ in unet.named_modules()]


def test_a_controlnet_that_the_pipeline_takes(world: World, tmp_path: Path) -> None:
    result = train("controlnet", tmp_path / "canny", *decoder(world), *world.data("images"))
    weights = tmp_path / "weights"
    shutil.copytree(world.start, weights)
    shutil.copytree(result, weights / "controlnet" / "canny")
    for name, tensor in load_file(result / "diffusion_pytorch_model.safetensors").items():
        assert torch.isfinite(tensor).all(), name
    pipe = KosmosGPipeline.from_pretrained(weights)
    settings: dict[str, Any] = {"num_inference_steps": 2, "seed": 1}
    plain = np.asarray(pipe("a cat", **settings).images[0])
    control = Control(kind="canny", image=IMAGE, scale=2)
    drawn = np.asarray(pipe("a cat", control=control, **settings).images[0])
    assert plain.shape == drawn.shape


def test_maps_are_those_of_the_images_that_are_encoded(world: World, tmp_path: Path) -> None:
    train("controlnet", tmp_path / "canny", *decoder(world), *world.data("images"))
    encoded = load_file(tmp_path / "canny" / "latents.safetensors")
    maps = encoded["control_map"]
    assert maps.shape == (len(encoded["ids"]), 3, 64, 64)
    assert set(maps.unique().tolist()) == {0, 255}


def test_weights_with_a_text_encoder_are_a_decoder_too(world: World, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(world.start, weights)
    assert (weights / "clip_tokenizer").is_dir()
    train("lora", tmp_path / "lora", "--decoder", weights, *world.data("neon"))


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        ("lora", ["--rank", "0"], "--rank is 0; it must be from 1 to 256"),
        ("controlnet", ["--kind", "depth"], "--kind is 'depth'; maps can be made of canny"),
    ],
)
def test_mistakes(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    stage: str,
    arguments: list[str],
    message: str,
) -> None:
    words = ["--output", tmp_path / "run", *decoder(world), *world.data("neon"), *arguments]
    assert message in fails(capsys, stage, *words)


def test_other_settings_are_refused(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    common = [*decoder(world), *world.data("neon")]
    train("lora", tmp_path / "run", *common)
    words = ["--output", tmp_path / "run", *common, "--rank", 8, "--min-side", 64]
    assert "rank was 4 and is 8" in fails(capsys, "lora", *words)


def test_a_folder_that_is_no_decoder(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    words = ["--output", tmp_path / "run", "--decoder", tmp_path, *world.data("neon")]
    assert str(tmp_path) in fails(capsys, "lora", *words)

"""The U-Net's loss by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn import functional as F
from transformers import CLIPTextModel

from kosmosg.checkpoints.stable_diffusion import (
    SD15_SCHEDULER,
    encode_captions,
    load_clip_tokenizer,
)
from kosmosg.training.noise import Diffusion
from kosmosg.training.stage import trainable
from miniature.pretraining.unet import DecoderStage, LatentExample
from tests.training.world import World


@pytest.fixture(scope="module")
def stage(world: World) -> DecoderStage:
    folder = world.folder / "decoder" / "weights"
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet")
    encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
    null_ids = encode_captions(load_clip_tokenizer(folder / "tokenizer"), [""])[0]
    diffusion = Diffusion(SD15_SCHEDULER, 0.7)
    return DecoderStage(unet, encoder, null_ids, diffusion, source=folder)


def example(seed: int) -> LatentExample:
    draw = torch.Generator().manual_seed(seed)
    return LatentExample(
        mean=torch.randn(4, 8, 8, generator=draw).half(),
        deviation=torch.rand(4, 8, 8, generator=draw).half(),
        ids=torch.randint(0, 400, (32,), generator=draw),
        seed=seed,
    )


def test_only_the_unet_is_trained(stage: DecoderStage) -> None:
    assert {name.split(".")[0] for name in trainable(stage)} == {"unet"}
    assert len(trainable(stage)) == len(list(stage.unet.parameters()))
    stage.set_modes()
    assert stage.unet.training
    assert not stage.text_encoder.training


def test_loss_by_hand(stage: DecoderStage) -> None:
    """Of samples, some of which lose their caption."""
    samples = [example(seed) for seed in range(20)]
    stage.eval()
    diffusion = Diffusion(SD15_SCHEDULER, 0.7)
    losses, replaced = [], 0
    with torch.no_grad():
        for sample in samples:
            draws = diffusion.draw([sample.seed], (4, 8, 8), torch.device("cpu"))
            mean, deviation = sample.mean.float()[None], sample.deviation.float()[None]
            noisy = diffusion.add_noise(mean, deviation, draws)
            drop = draws.null.item() < 0.1
            replaced += drop
            ids = stage.null_ids if drop else sample.ids[None]
            condition = stage.text_encoder(ids).last_hidden_state  # type: ignore[arg-type]
            predicted: Any = stage.unet(noisy, draws.timesteps, condition)
            losses.append(F.mse_loss(predicted.sample, draws.noise))
        found = stage.losses(stage.collate(samples))["loss"]
    assert 0 < replaced < 10
    torch.testing.assert_close(found, torch.stack(losses).mean(), atol=1e-5, rtol=0)


def test_the_result_joins_what_there_was(stage: DecoderStage, tmp_path: Path) -> None:
    stage.save(tmp_path / "weights")
    assert (tmp_path / "weights" / "unet" / "config.json").is_file()
    assert (tmp_path / "weights" / "text_encoder" / "config.json").is_file()


def test_timesteps_with_little_noise_count_less() -> None:
    """Weights of Stable Diffusion's schedule, by hand."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, dim=0)
    timesteps = torch.tensor([0, 100, 300, 999])
    ratio = (alphas / (1 - alphas))[timesteps]
    wanted = torch.where(ratio > 5, 5 / ratio, torch.ones(()).double())
    found = Diffusion(SD15_SCHEDULER, 0.7).snr_weights(timesteps, 5.0)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-6)
    assert wanted[0] < 0.01
    assert wanted[-1] == 1


def test_loss_with_limited_ratio(world: World) -> None:
    folder = world.folder / "decoder" / "weights"
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet")
    encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
    null_ids = encode_captions(load_clip_tokenizer(folder / "tokenizer"), [""])[0]
    diffusion = Diffusion(SD15_SCHEDULER, 0.7)
    plain, limited = (
        DecoderStage(unet, encoder, null_ids, diffusion, snr_gamma=gamma).eval()
        for gamma in (None, 5.0)
    )
    samples = [example(1), example(2), example(3)]
    found = limited.losses(limited.collate(samples))
    torch.testing.assert_close(found["noise"], plain.losses(plain.collate(samples))["loss"])
    alone = [limited.losses(limited.collate([sample]))["loss"] for sample in samples]
    torch.testing.assert_close(found["loss"], torch.stack(alone).mean())
    assert found["loss"] < found["noise"]

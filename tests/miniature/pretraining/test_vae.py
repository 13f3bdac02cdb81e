"""The autoencoder's loss by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from kosmosg.data.preprocessing import Prepared
from kosmosg.prompts.tokenizer import TokenizedPrompt
from kosmosg.training.loop import train
from kosmosg.training.stages.common import SeededSample
from miniature.pretraining.perceptual import PerceptualDistance
from miniature.pretraining.vae import VaeStage
from tests.training.stages.examples import images
from tests.training.toy import ToyStream, toy_options
from tests.training.world import SIZES


def example(number: int) -> SeededSample:
    target = np.random.default_rng(number).uniform(-1, 1, (3, 64, 64))
    prompt = TokenizedPrompt(ids=(), image_mask=())
    prepared = Prepared(prompt=prompt, pixels=(), target=target, caption="")
    return SeededSample(prepared=prepared, seed=number)


@pytest.fixture
def stage() -> VaeStage:
    torch.manual_seed(0)
    return VaeStage(AutoencoderKL(**SIZES["vae"]))


def test_loss_by_hand(stage: VaeStage) -> None:
    samples = [example(1), example(2)]
    found = stage.losses(stage.collate(samples))
    each = []
    vae: Any = stage.vae
    for sample in samples:
        pixels = torch.from_numpy(np.asarray(sample.prepared.target)).float()[None]
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(sample.seed))
        latents = posterior.mean + posterior.std * noise
        error = vae.decode(latents).sample - pixels
        right, below = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
        pixel = (error**2).mean() + 0.1 * error.abs().mean()
        edge = (right**2).mean() + (below**2).mean()
        divergence = posterior.kl()[0] / latents.numel()
        each.append(torch.stack([pixel, edge, divergence]))
    pixel, edge, divergence = torch.stack(each).mean(0)
    wanted = {"pixel": pixel, "edge": edge, "divergence": divergence}
    wanted["loss"] = pixel + edge + 1e-6 * divergence
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


def test_the_perceptual_distance_is_part_of_the_loss(distance: PerceptualDistance) -> None:
    torch.manual_seed(0)
    stage = VaeStage(AutoencoderKL(**SIZES["vae"]), perceptual=distance)
    stage.set_modes()
    losses = stage.losses(stage.collate([example(1), example(2)]))
    wanted = losses["pixel"] + losses["edge"] + 1e-6 * losses["divergence"]
    torch.testing.assert_close(losses["loss"], wanted + 0.2 * losses["perceptual"])
    losses["perceptual"].backward()
    assert all(weight.grad is None for weight in distance.parameters())
    grad = stage.vae.decoder.conv_in.weight.grad
    assert grad is not None
    assert grad.abs().sum() > 0


def test_latents_are_disturbed_for_a_decoder_trained_alone() -> None:
    torch.manual_seed(0)
    vae: Any = AutoencoderKL(**SIZES["vae"], scaling_factor=0.5)
    stage = VaeStage(vae, decoder_only=True)
    degrees = stage._disturbance(range(200))
    assert degrees.shape == (200, 1, 1, 1)
    assert degrees.min() < 0.02
    assert 0.38 < degrees.max() < 0.4  # a fifth of a deviation of 2
    seen: list[torch.Tensor] = []
    vae.decode = lambda latents: seen.append(latents) or type("", (), {"sample": images(2, 0)})
    stage.losses(stage.collate([example(1), example(2)]))
    mean = vae.encode(stage.collate([example(1), example(2)]).pixels).latent_dist.mean
    offsets = (seen[0] - mean).std(dim=(1, 2, 3))
    for offset, seed in zip(offsets, (1, 2), strict=True):
        degree = stage._disturbance([seed]).item()
        noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed))
        posterior = vae.encode(stage.collate([example(seed)]).pixels).latent_dist.std[0]
        wanted = (torch.hypot(posterior, torch.tensor(degree)) * noise).std()
        torch.testing.assert_close(offset, wanted, rtol=1e-3, atol=1e-4)


def test_the_square_of_the_latents_is_followed(stage: VaeStage) -> None:
    losses = stage.losses(stage.collate([example(1)]))
    assert stage.latent_square == 1  # a micro-batch alone does not change it
    vae: Any = stage.vae
    posterior = vae.encode(stage.collate([example(1)]).pixels).latent_dist
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    square = (posterior.mean + posterior.std * noise).square().mean().item()
    assert losses["square"].item() == pytest.approx(square, rel=1e-5)
    for update in (1, 2):
        stage.after_update({name: loss.item() for name, loss in losses.items()})
        wanted = 1 + (square - 1) * (1 - 0.99**update)
        assert stage.latent_square.item() == pytest.approx(wanted, rel=1e-5)
    assert "latent_square" in stage.state_dict()


def test_the_scale_does_not_depend_on_the_cut_into_micro_batches(tmp_path: Path) -> None:
    def build() -> VaeStage:
        torch.manual_seed(0)
        return VaeStage(AutoencoderKL(**SIZES["vae"]))

    scales = []
    for size in (4, 1, 3):
        options = toy_options(
            tmp_path / str(size), updates=2, batch_size=4, micro_batch_size=size, learning_rate=1e-3
        )
        folder = train(build, lambda rank, processes: Examples(rank, processes), options)
        config = json.loads((folder / "vae" / "config.json").read_text())
        scales.append(config["scaling_factor"])
    assert scales == pytest.approx([scales[0]] * 3, rel=1e-5)
    assert scales[0] != 1


class Examples(ToyStream):
    """Images of noise, by their number."""

    def __next__(self) -> SeededSample:
        return example(super().__next__())


def test_a_decoder_alone_follows_no_latents(distance: PerceptualDistance) -> None:
    """What comes from the frozen encoder is no loss of its decoder."""
    torch.manual_seed(0)
    vae = AutoencoderKL(**SIZES["vae"])
    stage = VaeStage(vae, decoder_only=True, perceptual=distance)
    losses = stage.losses(stage.collate([example(1), example(2)]))
    assert losses.keys() == {"loss", "pixel", "edge", "perceptual"}
    wanted = losses["pixel"] + losses["edge"] + 0.2 * losses["perceptual"]
    torch.testing.assert_close(losses["loss"], wanted)
    stage.after_update({name: loss.item() for name, loss in losses.items()})
    assert stage.latent_square == 1


def test_sheet(stage: VaeStage) -> None:
    assert stage.sample_images() is None
    stage.collate([example(n) for n in range(10)])
    stage.collate([example(11)])  # the first ones stay
    with torch.no_grad():
        sheet = stage.sample_images()
    assert sheet is not None
    assert sheet.size == (8 * 64, 2 * 64)
    wanted = (np.asarray(example(0).prepared.target) + 1) * 127.5
    np.testing.assert_allclose(np.asarray(sheet)[:64, :64].transpose(2, 0, 1), wanted, atol=0.51)

"""The autoencoder's loss by hand, where it begins, and what becomes of its latents."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d

from kosmosg.data.preprocessing import Prepared
from kosmosg.prompts.tokenizer import TokenizedPrompt
from kosmosg.training.loop import train
from kosmosg.training.stages.common import SeededSample
from miniature.pretraining.perceptual import PerceptualDistance
from miniature.pretraining.vae import VaeStage, begin_with_signal, normalise_latents
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
        half = vae.decode(avg_pool2d(latents, 2)).sample - avg_pool2d(pixels, 2)
        coarse = (half**2).mean() + 0.1 * half.abs().mean()
        each.append(torch.stack([pixel, edge, divergence, coarse]))
    pixel, edge, divergence, coarse = torch.stack(each).mean(0)
    wanted = {"pixel": pixel, "edge": edge, "divergence": divergence, "coarse": coarse}
    wanted["loss"] = pixel + edge + 1e-6 * divergence + 0.25 * coarse
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


def test_the_perceptual_distance_is_part_of_the_loss(distance: PerceptualDistance) -> None:
    torch.manual_seed(0)
    stage = VaeStage(AutoencoderKL(**SIZES["vae"]), perceptual=distance)
    stage.set_modes()
    losses = stage.losses(stage.collate([example(1), example(2)]))
    wanted = losses["pixel"] + losses["edge"] + 1e-6 * losses["divergence"]
    wanted = wanted + 0.25 * losses["coarse"]
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


def sample_latents(vae: Any, numbers: list[int]) -> torch.Tensor:
    pixels = torch.stack([torch.from_numpy(example(n).prepared.target).float() for n in numbers])
    posterior = vae.encode(pixels).latent_dist
    draws = [torch.Generator().manual_seed(number) for number in numbers]
    return posterior.mean + posterior.std * torch.stack(
        [torch.randn(4, 8, 8, generator=draw) for draw in draws]
    )


def test_the_moments_of_the_latents_are_followed_in_training(stage: VaeStage) -> None:
    with torch.no_grad():
        stage.losses(stage.collate([example(1)]))
        latents = sample_latents(stage.vae, [1])
    stage.after_update({})
    assert torch.equal(stage.latent_square, torch.ones(4))
    mean, square = latents.mean(dim=(0, 2, 3)), latents.square().mean(dim=(0, 2, 3))
    for update in (1, 2):
        stage.losses(stage.collate([example(1)]))
        stage.after_update({})
        old = 0.99**update
        torch.testing.assert_close(stage.latent_mean, mean * (1 - old))
        torch.testing.assert_close(stage.latent_square, old + square * (1 - old))
    assert {"latent_mean", "latent_square"} <= stage.state_dict().keys()


def test_the_moments_do_not_depend_on_the_cut_into_micro_batches(tmp_path: Path) -> None:
    def build() -> VaeStage:
        torch.manual_seed(0)
        return VaeStage(AutoencoderKL(**SIZES["vae"]))

    written = []
    for size in (4, 1, 3):
        options = toy_options(
            tmp_path / str(size), updates=2, batch_size=4, micro_batch_size=size, learning_rate=1e-3
        )
        folder = train(build, lambda rank, processes: Examples(rank, processes), options)
        written.append(load_file(folder / "vae" / "diffusion_pytorch_model.safetensors"))
    for other in written[1:]:
        for name, tensor in written[0].items():
            torch.testing.assert_close(other[name], tensor, atol=1e-4, rtol=1e-4)


class Examples(ToyStream):
    """Images of noise, by their number."""

    def __next__(self) -> SeededSample:
        return example(super().__next__())


def test_written_latents_have_mean_0_and_variance_1_and_give_the_same_images(
    stage: VaeStage, tmp_path: Path
) -> None:
    vae: Any = stage.vae
    with torch.no_grad():
        vae.quant_conv.weight[:4] *= torch.tensor([0.1, 1.0, 5.0, 20.0])[:, None, None, None]
        vae.quant_conv.bias[:4] += torch.tensor([3.0, 0.0, -2.0, 7.0])
    numbers = [*range(6)]
    latents = sample_latents(vae, numbers)
    stage.latent_mean.copy_(latents.mean(dim=(0, 2, 3)))
    stage.latent_square.copy_(latents.square().mean(dim=(0, 2, 3)))
    wanted = vae.decode(latents).sample
    stage.save(tmp_path)
    written: Any = AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert written.config.scaling_factor == 1.0
    normal = sample_latents(written, numbers)
    torch.testing.assert_close(normal.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    deviations = normal.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(deviations, torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(written.decode(normal).sample, wanted, atol=1e-3, rtol=1e-3)


def test_a_channel_that_never_changes_is_normalised_too() -> None:
    vae: Any = AutoencoderKL(**SIZES["vae"])
    normalise_latents(vae, torch.full((4,), 2.0), torch.full((4,), 4.0))
    assert all(torch.isfinite(weight).all() for weight in vae.state_dict().values())


def test_an_untrained_autoencoder_lets_the_image_through() -> None:
    """Its latents follow the image, and have more signal than noise."""
    torch.manual_seed(0)
    plain: Any = AutoencoderKL(**SIZES["vae"])
    vae: Any = AutoencoderKL(**SIZES["vae"])
    begin_with_signal(vae)
    smooth = torch.nn.functional.interpolate(images(4, 0)[:, :, ::16, ::16], size=64)
    with torch.no_grad():
        ratios = []
        for each in (plain, vae):
            posterior = each.encode(smooth).latent_dist
            ratios.append((posterior.mean.std() / posterior.std.mean()).item())
        assert ratios[0] < 1 < 5 < ratios[1]
        decoded = vae.decode(vae.encode(smooth).latent_dist.mean).sample
    assert 0.2 < decoded.std() < 5


def test_squares_are_cut_out_by_the_seed() -> None:
    stage = VaeStage(AutoencoderKL(**SIZES["vae"]), crop=24)
    samples = [example(n) for n in range(8)]
    pixels = stage.collate(samples).pixels
    assert pixels.shape == (8, 3, 24, 24)
    assert torch.equal(pixels, stage.collate(samples).pixels)
    corners = set()
    for cut, sample in zip(pixels, samples, strict=True):
        whole = torch.from_numpy(np.asarray(sample.prepared.target)).float()
        found = (whole.unfold(1, 24, 1).unfold(2, 24, 1) == cut[:, None, None]).all(dim=(0, 3, 4))
        assert found.sum() == 1
        corners.add(tuple(found.nonzero()[0].tolist()))
    assert len(corners) == 8


def test_a_decoder_alone_follows_no_latents(distance: PerceptualDistance) -> None:
    """What comes from the frozen encoder is no loss of its decoder."""
    torch.manual_seed(0)
    vae = AutoencoderKL(**SIZES["vae"])
    stage = VaeStage(vae, decoder_only=True, perceptual=distance)
    losses = stage.losses(stage.collate([example(1), example(2)]))
    assert losses.keys() == {"loss", "pixel", "edge", "perceptual"}
    wanted = losses["pixel"] + losses["edge"] + 0.2 * losses["perceptual"]
    torch.testing.assert_close(losses["loss"], wanted)
    assert torch.equal(stage.latent_square, torch.ones(4))


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

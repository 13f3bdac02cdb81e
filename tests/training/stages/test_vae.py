"""The autoencoder's loss by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from kosmosg.data.prepare import Prepared
from kosmosg.tokenizer import TokenizedPrompt
from kosmosg.training.stages.examples import Example
from kosmosg.training.stages.vae import VaeStage
from tests.training.world import SIZES


def example(number: int) -> Example:
    target = np.random.default_rng(number).uniform(-1, 1, (3, 64, 64))
    prompt = TokenizedPrompt(ids=(), image_mask=())
    prepared = Prepared(prompt=prompt, pixels=(), target=target, caption="")
    return Example(prepared=prepared, seed=number)


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


def test_the_square_of_the_latents_is_followed(stage: VaeStage) -> None:
    assert stage.latent_square == 1
    stage.losses(stage.collate([example(1)]))
    first = stage.latent_square.item()
    assert first != 1
    assert "latent_square" in stage.state_dict()


def test_sheet(stage: VaeStage) -> None:
    assert stage.draw_samples() is None
    stage.collate([example(n) for n in range(10)])
    stage.collate([example(11)])  # the first ones stay
    with torch.no_grad():
        sheet = stage.draw_samples()
    assert sheet is not None
    assert sheet.size == (8 * 64, 2 * 64)
    wanted = (np.asarray(example(0).prepared.target) + 1) * 127.5
    np.testing.assert_allclose(np.asarray(sheet)[:64, :64].transpose(2, 0, 1), wanted, atol=0.51)

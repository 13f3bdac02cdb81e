"""The chance of a diffusion loss: from the sample's seed, and as often as published."""

import pytest
import torch

from kosmosg.checkpoints.stable_diffusion import SD15_SCHEDULER
from kosmosg.errors import WeightsError
from kosmosg.training.noise import Diffusion

CPU = torch.device("cpu")
SHAPE = (2, 3, 3)


def diffusion() -> Diffusion:
    return Diffusion(SD15_SCHEDULER, scaling_factor=0.5)


def test_draws_depend_on_the_seed_alone() -> None:
    together = diffusion().draw([5, 6, 7], SHAPE, CPU)
    torch.manual_seed(0)
    alone = diffusion().draw([6], SHAPE, CPU)
    for name in ("posterior", "noise", "timesteps", "null"):
        assert torch.equal(getattr(together, name)[1:2], getattr(alone, name)), name
    assert not torch.equal(together.posterior, together.noise)


def test_how_often_and_how_far() -> None:
    draws = diffusion().draw(range(6000), (1,), CPU)
    assert abs((draws.null < 0.1).float().mean() - 0.1) < 0.015
    assert (draws.timesteps.min(), draws.timesteps.max()) == (0, 999)
    assert abs(draws.timesteps.float().mean() - 499.5) < 15
    for values in (draws.posterior, draws.noise):
        assert abs(values.mean()) < 0.05
        assert abs(values.std() - 1) < 0.05
    pairs = torch.corrcoef(torch.stack([draws.null, draws.timesteps.float(), draws.noise[:, 0]]))
    assert (pairs - torch.eye(3)).abs().max() < 0.05


def test_a_decoder_that_predicts_something_else_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"prediction_type='v_prediction', but .* 'epsilon'"):
        Diffusion({**SD15_SCHEDULER, "prediction_type": "v_prediction"}, 1.0)
    Diffusion({**SD15_SCHEDULER, "prediction_type": "epsilon"}, 1.0)


def test_noise_is_added_as_the_schedule_has_it() -> None:
    draws = diffusion().draw([1, 2], SHAPE, CPU)
    mean, deviation = torch.randn(2, *SHAPE), torch.rand(2, *SHAPE)
    found = diffusion().add_noise(mean, deviation, draws)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = (1 - betas).cumprod(0)[draws.timesteps][:, None, None, None]
    latents = 0.5 * (mean + deviation * draws.posterior)
    wanted = kept.sqrt() * latents + (1 - kept).sqrt() * draws.noise
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_conditions_are_replaced() -> None:
    draws = diffusion().draw(range(40), SHAPE, CPU)
    condition, null = torch.ones(40, 2, 3), torch.zeros(1, 2, 3)
    found = diffusion().drop(condition, null, draws)[:, 0, 0] == 0
    assert torch.equal(found, draws.null < 0.1)
    never = Diffusion(SD15_SCHEDULER, 1.0, null_probability=0.0)
    assert never.drop(condition, null, draws).all()

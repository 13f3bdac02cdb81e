"""The moving average by hand."""

import torch
from torch import nn

from kosmosg.training.average import MovingAverage


def test_it_forgets_its_beginning_sooner() -> None:
    """2 / 11 stays of it at the first update, 3 / 12 at the second, the decay from the ninth on."""
    parameter = nn.Parameter(torch.zeros(1))
    average = MovingAverage({"p": parameter}, decay=0.5)
    wanted = 0.0
    for update in range(1, 15):
        parameter.data.fill_(update)
        average.update({"p": parameter})
        decay = min(0.5, (1 + update) / (10 + update))
        assert (decay == 0.5) == (update >= 8)
        wanted = decay * wanted + (1 - decay) * update
        torch.testing.assert_close(average.state_dict()["p"].item(), wanted, atol=1e-5, rtol=0)


def test_it_is_kept_in_float32_and_goes_on() -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    average = MovingAverage({"p": parameter}, decay=0.999)
    for _ in range(3):
        parameter.data += 1
        average.update({"p": parameter})
    saved = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    assert saved["p"].dtype == torch.float32
    other = MovingAverage({"p": nn.Parameter(torch.zeros(2))}, decay=0.999)
    other.load_state_dict(saved, updates=3)
    for each in (average, other):
        each.update({"p": parameter})
    assert torch.equal(average.state_dict()["p"], other.state_dict()["p"])

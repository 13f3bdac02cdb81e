"""The exponential moving average of the trained weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# The average forgets its first, untrained values sooner: decay (1 + n) / (10 + n) at update n.
EARLY = 10.0


class MovingAverage:
    """Keeps ``decay · average + (1 - decay) · weights`` of every parameter, in float32.

    Sharded parameters are averaged where they are; only ``state_dict`` gathers them.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float):
        self._decay = decay
        self._updates = 0
        self._values = {name: p.detach().clone().float() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Take in the weights after an update."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (EARLY + self._updates))
        for name, parameter in parameters.items():
            self._values[name].lerp_(parameter.detach().float(), 1.0 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average by name, whole and on the CPU."""
        return {name: _gather(value).cpu() for name, value in self._values.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Go on from an average of so many updates."""
        self._updates = updates
        for name, value in self._values.items():
            value.copy_(_like(state[name], value))


def _gather(value: Any) -> Tensor:
    """Put the shards of a tensor together; every process must call this."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _like(whole: Tensor, value: Any) -> Tensor:
    """Cut a whole tensor into shards as another one is."""
    if not hasattr(value, "full_tensor"):
        return whole.to(value.device)
    from torch.distributed.tensor import distribute_tensor

    sharded: Tensor = distribute_tensor(whole.to(value.device), value.device_mesh, value.placements)
    return sharded

"""What training changes, taken out whole and put back: weights, moments, average, loss scale.

The functions of ``torch.distributed.checkpoint`` name everything by parameter, whether the
networks are on one process, replicated or sharded.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from kosmosg.training.average import MovingAverage
from kosmosg.training.checkpoints import Checkpoint
from kosmosg.training.stage import Stage, trainable

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
# Frozen weights are in no checkpoint, so that some names are missing.
PARTIAL = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The parts of a run that change.

    Attributes:
        stage: The networks.
        model: The same, as accelerate wrapped them.
        optimizer: As accelerate wrapped it.
        average: Moving average of the weights, if there is one.
        scaler: Loss scale of float16, if there is one.
    """

    stage: Stage
    model: nn.Module
    optimizer: Any
    average: MovingAverage | None
    scaler: Any

    def weights(self, averaged: bool = False) -> dict[str, Tensor]:
        """Gather trained parameters and buffers on the CPU; every process must call this.

        Args:
            averaged: Give the moving average of the parameters, if there is one.
        """
        weights: dict[str, Any] = dict(get_model_state_dict(self.model, options=WHOLE))
        if averaged and self.average:
            weights |= self.average.state_dict()
        return weights

    def take(self, step: int, identity: dict[str, Any], report: dict[str, Any]) -> Checkpoint:
        """Gather everything; every process must call this."""
        moments: Any = get_optimizer_state_dict(self.model, self._inner_optimizer, options=WHOLE)
        return Checkpoint(
            step=step,
            identity=identity,
            scaler=self.scaler.state_dict() if self.scaler else {},
            weights=self.weights(),
            optimizer=moments.get("state", {}),
            ema=self.average.state_dict() if self.average else {},
            report=report,
        )

    def put_back(self, checkpoint: Checkpoint) -> None:
        """Go on from what was gathered.

        Raises:
            KeyError: If a trained parameter is not in it.
        """
        names = trainable(self.stage).keys()
        for kept in (checkpoint.weights, checkpoint.ema if self.average else names):
            if missing := names - kept:
                raise KeyError(min(missing))
        weights: dict[str, Any] = dict(checkpoint.weights)
        set_model_state_dict(self.model, weights, options=PARTIAL)
        optimizer = self._inner_optimizer
        groups = [{**optimizer.defaults, "params": list(trainable(self.stage))}]
        moments: dict[str, Any] = {"state": checkpoint.optimizer, "param_groups": groups}
        set_optimizer_state_dict(self.model, optimizer, moments, options=PARTIAL)
        if self.average:
            self.average.load_state_dict(checkpoint.ema, checkpoint.step)
        if self.scaler:
            self.scaler.load_state_dict(checkpoint.scaler)

    @property
    def _inner_optimizer(self) -> Any:
        return getattr(self.optimizer, "optimizer", self.optimizer)

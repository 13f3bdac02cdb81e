"""The parts of a run that change: gathered into what a checkpoint holds, and put back."""

from dataclasses import dataclass
from typing import Any

from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from kosmosg.training.stage import Stage, trainable

# The functions of torch.distributed.checkpoint name everything by parameter, whether the networks
# are on one process, replicated or sharded. Frozen weights are in no checkpoint.
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
PARTIAL = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything a run needs to go on.

    Attributes:
        step: Updates done.
        settings: Those that a resumed run must share.
        scaler: State of the loss scale; empty without one.
        weights: Trained parameters and buffers, by name.
        optimizer: State of each parameter: name → (such as "exp_avg") → tensor.
        ema: Moving average of the trained parameters, by name; empty without one.
        report: Losses counted since the last entry of the log.
        streams: Where each process stands in the data.
    """

    step: int
    settings: dict[str, Any]
    scaler: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, dict[str, Tensor]]
    ema: dict[str, Tensor]
    report: dict[str, Any]
    streams: list[dict[str, Any]]


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
    average: EMAModel | None
    scaler: Any

    def weights(self, averaged: bool = False) -> dict[str, Tensor]:
        """Gather trained parameters and buffers on the CPU; every process must call this.

        Args:
            averaged: Give the moving average of the parameters, if there is one.
        """
        weights: dict[str, Any] = dict(get_model_state_dict(self.model, options=WHOLE))
        return weights | self._averages() if averaged else weights

    def take(self, **run: Any) -> Checkpoint:
        """Gather everything; every process must call this.

        Args:
            run: What a checkpoint knows beside this: ``step``, ``settings``, ``report`` and
                ``streams``.
        """
        moments: Any = get_optimizer_state_dict(self.model, self._inner_optimizer, options=WHOLE)
        return Checkpoint(
            scaler=self.scaler.state_dict() if self.scaler else {},
            weights=self.weights(),
            optimizer=moments.get("state", {}),
            ema=self._averages(),
            **run,
        )

    def put_back(self, checkpoint: Checkpoint) -> None:
        """Go on from what was gathered.

        Raises:
            LookupError: If a trained parameter is not in it.
        """
        names = trainable(self.stage).keys()
        for kept in (checkpoint.weights, checkpoint.ema if self.average else names):
            if missing := names - kept:
                raise LookupError(f"it lacks {min(missing)}")
        weights: dict[str, Any] = dict(checkpoint.weights)
        set_model_state_dict(self.model, weights, options=PARTIAL)
        optimizer = self._inner_optimizer
        groups = [optimizer.param_groups[0] | {"params": list(trainable(self.stage))}]
        moments: dict[str, Any] = {"state": checkpoint.optimizer, "param_groups": groups}
        set_optimizer_state_dict(self.model, optimizer, moments, options=PARTIAL)
        if self.average:
            self.average.optimization_step = checkpoint.step
            for name, value in self._shadows().items():
                value.copy_(_like(checkpoint.ema[name], value))
        if self.scaler:
            self.scaler.load_state_dict(checkpoint.scaler)

    def _averages(self) -> dict[str, Tensor]:
        """Gather the moving average on the CPU, if there is one; every process must call this."""
        return {
            name: (value.full_tensor() if isinstance(value, DTensor) else value).cpu()
            for name, value in self._shadows().items()
        }

    def _shadows(self) -> dict[str, Tensor]:
        """Name what the average holds; of sharded parameters, these are shards."""
        values = self.average.shadow_params if self.average else []
        return dict(zip(trainable(self.stage) if self.average else [], values, strict=True))

    @property
    def _inner_optimizer(self) -> Any:
        return getattr(self.optimizer, "optimizer", self.optimizer)


def _like(whole: Tensor, value: Tensor) -> Tensor:
    """Cut a whole tensor into shards as another one is."""
    whole = whole.to(value.device)
    if not isinstance(value, DTensor):
        return whole
    return distribute_tensor(whole, value.device_mesh, value.placements)

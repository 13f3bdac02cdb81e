"""One update of a run: a batch in, gradients over all processes, a step of the optimizer.

An update is a function of the seed and its number: the noise of each sample (whose seed travels
with it), dropout (seeded anew for each update and process) and the learning rate.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kosmosg.errors import TrainingError
from kosmosg.training.accelerator import MIN_LOSS_SCALE
from kosmosg.training.checkpoints import CHECKPOINTS
from kosmosg.training.options import LoopOptions
from kosmosg.training.stage import Stage


class Updater:
    """Does the updates of a run.

    Args:
        accelerator: Moves networks to devices and their gradients between processes.
        stage: The networks.
        model: The same, as accelerate wrapped them.
        optimizer: As accelerate wrapped it.
        options: How to train.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        stage: Stage,
        model: nn.Module,
        optimizer: Any,
        options: LoopOptions,
    ):
        self._accelerator, self._options = accelerator, options
        self._stage, self._model, self._optimizer = stage, model, optimizer

    def update(self, step: int, samples: Sequence[Any]) -> dict[str, float]:
        """Do one update.

        Args:
            step: Its number, from 0.
            samples: This process's share of the batch.

        Returns:
            Means of the losses over the whole batch, norm of the gradient, and learning rate.

        Raises:
            TrainingError: If the loss is no number any more; no weight has changed then.
        """
        options, accelerator = self._options, self._accelerator
        rate = options.learning_rate_at(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._stage.set_modes()
        size = options.micro_batch_size or len(samples)
        batches = [self._stage.collate(part) for part in split(samples, size)]
        torch.manual_seed(seed_of_update(options.seed, step, accelerator.process_index))
        losses = self._accumulate(batches)
        norm: Any = accelerator.clip_grad_norm_(self._model.parameters(), options.clip_norm)
        losses |= {"gradient": float(norm), "rate": rate}
        self._check_finite(step, losses)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._stage.after_update(losses)
        return losses

    def _accumulate(self, batches: Sequence[Any]) -> dict[str, float]:
        """Add up the gradients of micro-batches, and return the losses over all processes."""
        accelerator = self._accelerator
        weights = [self._stage.weigh(batch) for batch in batches]
        total = max(1.0, self._sum(torch.tensor([sum(weights)])).item())  # 0 without any text
        sums: dict[str, Tensor] = {}
        for number, (batch, weight) in enumerate(zip(batches, weights, strict=True), start=1):
            # Of shards, whole gradients would stay on every process until the last one.
            at_once = number == len(batches) or accelerator.is_fsdp2
            with nullcontext() if at_once else accelerator.no_sync(self._model):
                with accelerator.autocast():
                    losses = self._model(batch.to(accelerator.device))
                # Gradients are averaged over processes, and this batch is a part of the whole.
                accelerator.backward(losses["loss"] * (weight / total * accelerator.num_processes))
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach() * (weight / total)
        summed = self._sum(torch.stack(list(sums.values()))).tolist()
        return dict(zip(sums, summed, strict=True))

    def _sum(self, values: Tensor) -> Tensor:
        summed: Any = self._accelerator.reduce(values.float().to(self._accelerator.device), "sum")
        return summed

    def _check_finite(self, step: int, losses: dict[str, float]) -> None:
        loss, norm = losses["loss"], losses["gradient"]
        scaler = self._accelerator.scaler
        # Where there is a loss scale, a gradient that overflows makes it smaller, to a limit.
        bearable = scaler.get_scale() >= MIN_LOSS_SCALE if scaler else math.isfinite(norm)
        if math.isfinite(loss) and bearable:
            return
        folder = self._options.output / CHECKPOINTS
        raise TrainingError(
            f"The loss of update {step + 1} is {loss}, its gradient {norm}. Start the same command "
            "again with a lower --learning-rate, a longer --warmup-updates or a smaller "
            f"--clip-norm: it goes on from the newest checkpoint in {folder}. Remove that one to "
            "go on from the one before it."
        )


def seed_of_update(seed: int, step: int, rank: int) -> int:
    """Mix seed, update and process into a seed for what is drawn inside the networks."""
    generator = torch.Generator().manual_seed(seed)
    salt = int(torch.randint(2**62, (1,), generator=generator))
    return (salt + step * 1_000_003 + rank * 7_919) % 2**63


def split(samples: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Cut a list into parts of a size."""
    return [samples[start : start + size] for start in range(0, len(samples), size)]

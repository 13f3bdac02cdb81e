"""One loop for all stages, on accelerate: one process, several (DDP), or sharded (FSDP).

Every update is a function of the seed and its number: the data's order, the noise of each sample
(whose seed travels with it), dropout (seeded anew for each update and process) and the learning
rate. So a resumed run meets what an undisturbed one would have met, and a batch gives the same
losses on any number of processes and in any cut into micro-batches, but for dropout and for losses
in which the samples of a micro-batch look at each other (CLIP, the probe, the padding of align).
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kosmosg.errors import TrainingError
from kosmosg.memory import is_out_of_memory
from kosmosg.training.acceleration import (
    MIN_LOSS_SCALE,
    attention_kernels,
    enable_gradient_checkpointing,
    free_gathered,
    make_accelerator,
    prepare,
)
from kosmosg.training.average import MovingAverage
from kosmosg.training.checkpoint import (
    CheckpointFolder,
    read_checkpoint,
    read_stream,
    unreadable,
    write_checkpoint,
    write_stream,
)
from kosmosg.training.options import LoopOptions
from kosmosg.training.report import Report
from kosmosg.training.result import write_result
from kosmosg.training.resuming import CHECKPOINTS, check_resumption, is_extended
from kosmosg.training.stage import Stage, Stream, trainable
from kosmosg.training.state import TrainingState

logger = logging.getLogger(__name__)

WEIGHTS = "weights"


def train(
    build: Callable[[], Stage],
    open_stream: Callable[[int, int], Stream],
    options: LoopOptions,
    settings: Mapping[str, Any] | None = None,
    *,
    cpu: bool = False,
) -> Path:
    """Train a stage, from its beginning or from its last checkpoint.

    Args:
        build: Makes the stage with its starting weights. Called once more at the end, for the
            networks that the result is written from.
        open_stream: Opens the data of a process, given its rank and the number of processes.
        options: How to train; also where checkpoints and the result go.
        settings: The stage's own settings, which a resumed run must share, too.
        cpu: Stay on the CPU even if there is a GPU.

    Returns:
        The folder with the result.

    Raises:
        TrainingError: If the run cannot be resumed, its loss is no number any more, or a
            checkpoint cannot be written.
        DataError: If too much of the data is bad.
    """
    trainer = Trainer(build, open_stream, options, settings or {}, cpu)
    try:
        trainer.resume()
        if not trainer.finished:
            trainer.run()
            trainer.write_result()
    finally:
        trainer.close()
    return trainer.result


class Trainer:
    """A run: networks, optimizer, data, and the number of updates done."""

    def __init__(
        self,
        build: Callable[[], Stage],
        open_stream: Callable[[int, int], Stream],
        options: LoopOptions,
        settings: Mapping[str, Any],
        cpu: bool,
    ):
        self.step = 0
        self.finished = False
        self.result = options.output / WEIGHTS
        self._build, self._options = build, options
        self._accelerator = make_accelerator(options, cpu)
        self._stage = self._make_stage()
        rank, processes = self._accelerator.process_index, self._accelerator.num_processes
        self._share = options.share(processes)
        self._stream = open_stream(rank, processes)
        if options.gradient_checkpointing:
            enable_gradient_checkpointing(self._stage)
        parameters = list(trainable(self._stage).values())
        optimizer = torch.optim.AdamW(
            parameters,
            lr=options.learning_rate,
            betas=options.betas,
            eps=options.epsilon,
            weight_decay=options.weight_decay,
        )
        self._model, self._optimizer = prepare(self._accelerator, self._stage, optimizer)
        trained = trainable(self._stage)
        self._state = TrainingState(
            stage=self._stage,
            model=self._model,
            optimizer=self._optimizer,
            average=MovingAverage(trained, options.ema_decay) if options.ema_decay else None,
            scaler=self._accelerator.scaler,
        )
        self._identity = {
            **options.identity(),
            **settings,
            "processes": processes,
            "trained": sum(parameter.numel() for parameter in trained.values()),
        }
        self._folder = CheckpointFolder(options.output / CHECKPOINTS, options.keep)
        self._report = Report(options, enabled=self._accelerator.is_main_process)

    def _make_stage(self) -> Stage:
        torch.manual_seed(self._options.seed)  # what begins at random does so alike each time
        return self._build()

    def run(self) -> None:
        """Do the updates that are left."""
        options = self._options
        self._report.begin(self.step)
        while self.step < options.steps:
            try:
                with attention_kernels(self._accelerator.device, options.precision):
                    losses = self._update()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise TrainingError(
                    "The networks and a batch do not fit into the memory. Start the same command "
                    "again with a smaller micro-batch or with gradient checkpointing."
                ) from error
            self.step += 1
            self._report.count(self.step, losses)
            if options.sample_every and self.step % options.sample_every == 0:
                self._draw_samples()
            if self.step % options.save_every == 0 or self.step == options.steps:
                self.save()

    def _update(self) -> dict[str, float]:
        """Do one update and return its losses over all processes."""
        options, accelerator = self._options, self._accelerator
        rate = options.learning_rate_at(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._stage.set_modes()
        batches = self._take_batches()
        torch.manual_seed(seed_of_update(options.seed, self.step, accelerator.process_index))

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
        norm: Any = accelerator.clip_grad_norm_(self._model.parameters(), options.clip_norm)
        summed = self._sum(torch.stack(list(sums.values()))).tolist()
        values = {**dict(zip(sums, summed, strict=True)), "gradient": float(norm), "rate": rate}
        self._check_finite(values["loss"], values["gradient"])
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._state.average:
            self._state.average.update(trainable(self._stage))
        return values

    def _take_batches(self) -> list[Any]:
        samples = [next(self._stream) for _ in range(self._share)]
        size = self._options.micro_batch_size or self._share
        return [self._stage.collate(part) for part in split(samples, size)]

    def _sum(self, values: Tensor) -> Tensor:
        summed: Any = self._accelerator.reduce(values.float().to(self._accelerator.device), "sum")
        return summed

    def _check_finite(self, loss: float, norm: float) -> None:
        scaler = self._accelerator.scaler
        # Where there is a loss scale, a gradient that overflows makes it smaller, to a limit.
        bearable = scaler.get_scale() >= MIN_LOSS_SCALE if scaler else math.isfinite(norm)
        if math.isfinite(loss) and bearable:
            return
        raise TrainingError(
            f"The loss of update {self.step + 1} is {loss}, its gradient {norm}. Start the same "
            "command again with a lower learning rate, a longer warm-up or a smaller norm to clip "
            f"at: it goes on from the newest checkpoint in {self._folder.directory}. Remove that "
            "one to go on from the one before it."
        )

    def _draw_samples(self) -> None:
        with torch.no_grad(), self._accelerator.autocast():
            sheet = self._model(None)
        free_gathered(self._model)
        self._report.show(self.step, sheet)

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: If it cannot be written; the last one stays as it is.
        """
        accelerator = self._accelerator
        self._report.flush()
        checkpoint = self._state.take(self.step, self._identity, self._report.state_dict())
        main = accelerator.is_main_process
        with self._folder.writing(self.step, main) as folder:
            if main:
                write_checkpoint(checkpoint, folder)
            write_stream(self._stream.state_dict(), folder, accelerator.process_index)
        accelerator.wait_for_everyone()
        if main:
            self._folder.finish(self.step)
        accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one.

        Raises:
            TrainingError: If it is damaged or of a run with other settings, or if there is a
                result and no checkpoint that it comes from.
        """
        if self._accelerator.is_main_process:
            self._folder.clear_unfinished()
        self._accelerator.wait_for_everyone()
        folder = self._folder.latest()
        if folder is not None:
            self._go_on_from(folder)
        if self.result.is_dir() and self.step < self._options.steps:
            raise TrainingError(
                f"{self.result} is there already, but no checkpoint of step {self._options.steps} "
                "that it comes from. Remove it to train anew, or name another output folder."
            )
        self.finished = self.result.is_dir()
        self._accelerator.wait_for_everyone()  # before one of them writes a result

    def _go_on_from(self, folder: Path) -> None:
        checkpoint = read_checkpoint(folder)
        main = self._accelerator.is_main_process
        check_resumption(checkpoint, self._identity, self._options, folder, tell=main)
        if is_extended(checkpoint, self._options) and self.result.is_dir() and main:
            self.result.rename(self.result.with_name(f"{WEIGHTS}-{folder.name}"))
        self._accelerator.wait_for_everyone()
        stream = read_stream(folder, self._accelerator.process_index)
        try:
            self._state.put_back(checkpoint)
            self._stream.load_state_dict(stream)
        except (KeyError, RuntimeError) as error:
            raise unreadable(folder, f"it does not fit: {error}") from error
        self._report.load_state_dict(checkpoint.report)
        self.step = checkpoint.step
        logger.info("going on from %s", folder)

    def write_result(self) -> None:
        """Write the trained networks, or their moving average, as the next stage takes them.

        Raises:
            TrainingError: If they cannot be written.
        """
        weights = self._state.weights(averaged=True)
        if self._accelerator.is_main_process:
            dtype = getattr(torch, self._options.save_dtype)
            write_result(self._make_stage(), weights, self.result, dtype)
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """End the log."""
        self._report.close()


def seed_of_update(seed: int, step: int, rank: int) -> int:
    """Mix seed, update and process into a seed for what is drawn inside the networks."""
    generator = torch.Generator().manual_seed(seed)
    salt = int(torch.randint(2**62, (1,), generator=generator))
    return (salt + step * 1_000_003 + rank * 7_919) % 2**63


def split(samples: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Cut a list into parts of a size."""
    return [samples[start : start + size] for start in range(0, len(samples), size)]

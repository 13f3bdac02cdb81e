"""One loop for all stages, on accelerate: one process, several (DDP), or sharded (FSDP).

Every update is a function of the seed and its number: the data's order, the noise of each sample
(whose seed travels with it), dropout (seeded anew for each update and process) and the learning
rate. So a resumed run meets what an undisturbed one would have met, and a batch gives the same
losses on any number of processes and in any cut into micro-batches, but for dropout and for losses
in which the samples of a micro-batch look at each other (CLIP, the probe, the padding of align).
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate.utils import gather_object
from diffusers.training_utils import EMAModel

from kosmosg.data.bad_samples import Reason, describe
from kosmosg.errors import TrainingError
from kosmosg.training.accelerator import (
    attention_kernels,
    enable_gradient_checkpointing,
    free_gathered,
    make_accelerator,
    prepare,
)
from kosmosg.training.checkpoints import (
    check_resumption,
    find_latest,
    hold_run,
    is_extended,
    read_checkpoint,
    unusable,
    write_checkpoint,
    write_result,
)
from kosmosg.training.logging import Report
from kosmosg.training.optimizers import make_optimizer
from kosmosg.training.options import LoopOptions
from kosmosg.training.stage import Stage, Stream, close_stream, trainable
from kosmosg.training.state import TrainingState
from kosmosg.training.update import Updater
from kosmosg.utils.files import remove_unfinished
from kosmosg.utils.memory import is_out_of_memory

logger = logging.getLogger(__name__)

WEIGHTS = "weights"


def train(
    build: Callable[[], Stage],
    open_stream: Callable[[int, int], Stream],
    options: LoopOptions,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Train a stage, from its beginning or from its last checkpoint.

    Args:
        build: Makes the stage with its starting weights. Called once more at the end, for the
            networks that the result is written from.
        open_stream: Opens the data of a process, given its rank and the number of processes.
        options: How to train; also where checkpoints and the result go.
        settings: The stage's own settings, which a resumed run must share, too.

    Returns:
        The folder with the result.

    Raises:
        TrainingError: If the run cannot be resumed, another process is at work on it, its loss is
            no number any more, or a checkpoint cannot be written.
        DataError: If too much of the data is bad.
    """
    with hold_run(options.output):
        trainer = Trainer(build, open_stream, options, settings or {})
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
    ):
        self.step = 0
        self.finished = False
        self.result = options.output / WEIGHTS
        self._build, self._options = build, options
        self._accelerator = make_accelerator(options)
        self._stage = self._make_stage()
        rank, processes = self._accelerator.process_index, self._accelerator.num_processes
        self._share = options.share(processes)
        self._stream = open_stream(rank, processes)
        if options.gradient_checkpointing:
            enable_gradient_checkpointing(self._stage)
        optimizer = make_optimizer(trainable(self._stage).values(), options)
        self._model, optimizer = prepare(self._accelerator, self._stage, optimizer)
        self._updater = Updater(self._accelerator, self._stage, self._model, optimizer, options)
        trained = trainable(self._stage)
        self._state = TrainingState(
            stage=self._stage,
            model=self._model,
            optimizer=optimizer,
            average=EMAModel(trained.values(), options.ema_decay) if options.ema_decay else None,
            scaler=self._accelerator.scaler,
        )
        self._settings = {
            **options.identity(),
            **settings,
            "processes": processes,
            "trained": sum(parameter.numel() for parameter in trained.values()),
        }
        self._report = Report(options, self._accelerator)

    def _make_stage(self) -> Stage:
        torch.manual_seed(self._options.seed)  # what begins at random does so alike each time
        return self._build()

    def run(self) -> None:
        """Do the updates that are left."""
        options = self._options
        self._report.begin(self.step)
        while self.step < options.updates:
            try:
                with attention_kernels(self._accelerator.device, options.precision):
                    losses = self._update()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise TrainingError(
                    "The networks and a batch do not fit into the memory. Start the same command "
                    "again with a smaller --micro-batch-size or with --gradient-checkpointing."
                ) from error
            self.step += 1
            self._report.count(self.step, losses)
            if options.sample_every and self.step % options.sample_every == 0:
                self._draw_samples()
            if self.step % options.save_every == 0 or self.step == options.updates:
                self.save()
        self._tell_skipped()

    def _update(self) -> dict[str, float]:
        losses = self._updater.update(self.step, [next(self._stream) for _ in range(self._share)])
        if self._state.average:
            self._state.average.step(trainable(self._stage).values())
        return losses

    def _tell_skipped(self) -> None:
        """Say in one line what all processes have skipped since the run began."""
        counts: Counter[str] = Counter()
        for skipped in self._stream.skipped.values():
            counts.update(skipped)
        own = torch.tensor([counts[name] for name in get_args(Reason)])
        summed: Any = self._accelerator.reduce(own.to(self._accelerator.device), "sum")
        whole = {name: n for name, n in zip(get_args(Reason), summed.tolist(), strict=True) if n}
        if whole and self._accelerator.is_main_process:
            logger.warning("%s: skipped in all %s", self._options.output.name, describe(whole))

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
        checkpoint = self._state.take(
            step=self.step,
            settings=self._settings,
            report=self._report.state_dict(),
            streams=gather_object([self._stream.state_dict()]),
        )
        if accelerator.is_main_process:
            write_checkpoint(checkpoint, self._options.output, self._options.keep)
        accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one.

        Raises:
            TrainingError: If it is damaged or of a run with other settings, or if there is a
                result and no checkpoint that it comes from.
        """
        if self._accelerator.is_main_process:
            remove_unfinished(self._options.output)
        self._accelerator.wait_for_everyone()
        folder = find_latest(self._options.output)
        if folder is not None:
            self._go_on_from(folder)
        if self.result.is_dir() and self.step < self._options.updates:
            raise TrainingError(
                f"{self.result} is there already, but no checkpoint of update "
                f"{self._options.updates} that it comes from. Remove it to train anew, or name "
                "another output folder."
            )
        self.finished = self.result.is_dir()
        self._accelerator.wait_for_everyone()  # before one of them writes a result

    def _go_on_from(self, folder: Path) -> None:
        accelerator = self._accelerator
        checkpoint = read_checkpoint(folder)
        changed = check_resumption(checkpoint, self._settings, self._options, folder)
        if accelerator.is_main_process:
            if changed:
                logger.warning("from update %d on, %s", checkpoint.step + 1, "; ".join(changed))
            if is_extended(checkpoint, self._options) and self.result.is_dir():
                self.result.rename(self.result.with_name(f"{WEIGHTS}-{folder.name}"))
        accelerator.wait_for_everyone()
        try:
            self._state.put_back(checkpoint)
            self._stream.load_state_dict(checkpoint.streams[accelerator.process_index])
        except (LookupError, TypeError, RuntimeError) as error:
            raise unusable(folder, "does not fit", error) from error
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
        """End the log and the threads that read data."""
        close_stream(self._stream)
        self._report.close()

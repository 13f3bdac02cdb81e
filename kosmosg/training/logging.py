"""What a run says of itself: a progress line, a log for TensorBoard, sheets of samples."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from PIL import Image
from tqdm import tqdm

from kosmosg.errors import TrainingError
from kosmosg.training.options import LoopOptions
from kosmosg.utils.files import reason

logger = logging.getLogger(__name__)

LOGS, SAMPLES = "logs", "samples"  # folders of a run


class Report:
    """The voice of one run; only its main process has one.

    Losses go to the trackers of accelerate. The progress line counts samples, so that it shows
    samples per second and the time left:

        lm: 31%|███      | 38400/124800 [05:02<11:21, 126.8 samples/s, loss 1.204]

    Args:
        options: Of the run.
        accelerator: Knows the trackers, and whether this is the main process.
    """

    def __init__(self, options: LoopOptions, accelerator: Accelerator):
        self._options, self._accelerator = options, accelerator
        self._bar: tqdm | None = None
        self._sums: dict[str, float] = {}
        self._counted = 0
        self.loss: float | None = None  # as the log has it last

    def begin(self, step: int) -> None:
        """Open the log, without what it says of later steps, and draw the line.

        Raises:
            TrainingError: If the folder cannot be written.
        """
        if not self._accelerator.is_main_process:
            return
        options = self._options
        with self._writing():
            self._accelerator.init_trackers(
                LOGS, init_kwargs={"tensorboard": {"purge_step": step + 1}}
            )
        self._bar = tqdm(
            desc=options.output.name,
            total=options.updates * options.batch_size,
            initial=step * options.batch_size,
            unit=" samples",
            file=sys.stderr,
            mininterval=1.0 if sys.stderr.isatty() else 30.0,  # in a file each line stays
            dynamic_ncols=True,
        )

    def count(self, step: int, losses: dict[str, float]) -> None:
        """Take in the losses of an update; their means are logged at intervals.

        Raises:
            TrainingError: If the log cannot be written.
        """
        if self._bar is None:
            return
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._counted += 1
        if step % self._options.log_every == 0 or step == self._options.updates:
            means = {name: value / self._counted for name, value in self._sums.items()}
            with self._writing():
                self._accelerator.log(means, step)
            self.loss = means["loss"]
            self._bar.set_postfix_str(f"loss {means['loss']:.4g}", refresh=False)
            self._sums, self._counted = {}, 0
        self._bar.update(self._options.batch_size)

    def show(self, step: int, sheet: Image.Image | None) -> None:
        """Keep a sheet of samples as ``samples/step-….png``.

        Raises:
            TrainingError: If it cannot be written.
        """
        if sheet is None or not self._accelerator.is_main_process:
            return
        folder = self._options.output / SAMPLES
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            sheet.save(folder / f"step-{step:08d}.png")

    def state_dict(self) -> dict[str, Any]:
        """Return what is counted and not logged yet."""
        return {"sums": dict(self._sums), "counted": self._counted, "loss": self.loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting, so that a log's entry is the mean over all of its updates."""
        self._sums, self._counted = dict(state["sums"]), state["counted"]
        self.loss = state.get("loss")

    def close(self) -> None:
        """End the line and the log."""
        if self._bar is None:
            return
        self._bar.close()
        # Not accelerator.end_training, which would part the processes, too.
        for tracker in self._accelerator.trackers:
            try:
                tracker.finish()
            except OSError as error:  # the run is over, and may have an error of its own
                logger.warning("the log is not complete: %s", reason(error))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{self._options.output} cannot be written: {reason(error)}. Make room and start "
                "the same command again to go on from the last checkpoint."
            ) from error

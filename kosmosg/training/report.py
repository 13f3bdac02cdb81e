"""What a run says of itself: a progress line, a log for TensorBoard, sheets of samples."""

import sys
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from kosmosg.training.options import LoopOptions


class Report:
    """The voice of one run; only its main process has one.

    The progress line counts samples, so that it shows samples per second and the time left:

        lm: 31%|███      | 38400/124800 [05:02<11:21, 126.8 samples/s, loss 1.204]
    """

    def __init__(self, options: LoopOptions, enabled: bool):
        self._options = options
        self._enabled = enabled
        self._bar: tqdm | None = None
        self._writer: SummaryWriter | None = None
        self._sums: dict[str, float] = {}
        self._counted = 0

    def begin(self, step: int) -> None:
        """Open the log and draw the line."""
        if not self._enabled:
            return
        options = self._options
        self._writer = SummaryWriter(str(options.output / "logs"), purge_step=step + 1)
        self._bar = tqdm(
            desc=options.output.name,
            total=options.steps * options.batch_size,
            initial=step * options.batch_size,
            unit=" samples",
            file=sys.stderr,
            mininterval=1.0 if sys.stderr.isatty() else 30.0,  # in a file each line stays
            dynamic_ncols=True,
        )

    def count(self, step: int, losses: dict[str, float]) -> None:
        """Take in the losses of an update; their means are logged at intervals."""
        if self._bar is None or self._writer is None:
            return
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._counted += 1
        if step % self._options.log_every == 0 or step == self._options.steps:
            for name, value in self._sums.items():
                self._writer.add_scalar(name, value / self._counted, step)
            mean = self._sums["loss"] / self._counted
            self._bar.set_postfix_str(f"loss {mean:.4g}", refresh=False)
            self._sums, self._counted = {}, 0
        self._bar.update(self._options.batch_size)

    def show(self, step: int, sheet: Image.Image | None) -> None:
        """Keep a sheet of samples as ``samples/step-….png``."""
        if not self._enabled or sheet is None:
            return
        folder = self._options.output / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        sheet.save(folder / f"step-{step:08d}.png")

    def close(self) -> None:
        """End the line and the log."""
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()


def read_log(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Read back what a run has logged: name → (step, value) in order.

    Args:
        directory: The run's folder.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log: Any = EventAccumulator(str(directory / "logs"))
    log.Reload()
    return {
        name: [(event.step, event.value) for event in log.Scalars(name)]
        for name in log.Tags()["scalars"]
    }

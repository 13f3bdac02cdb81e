"""What the training loop asks of a stage: networks, batches, losses, a result."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from kosmosg.errors import KosmosGError, OutOfMemoryError
from kosmosg.utils.memory import free_memory, is_out_of_memory

logger = logging.getLogger(__name__)


class Stage(nn.Module, ABC):
    """The networks of a stage as one module, so that DDP and FSDP wrap them together.

    A stage is trained on the parameters that require a gradient when it is built. All chance in
    its losses but dropout comes from seeds that travel with the samples: a sample then meets the
    same noise whatever the number of processes or the cut into batches.
    """

    @abstractmethod
    def set_modes(self) -> None:
        """Put every network into training or evaluation mode."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Any:
        """Make a batch of samples; it has ``to(device)``."""

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Compute the losses, each a mean; the one called ``loss`` is minimised."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the trained networks where the next stage finds them."""

    def weigh(self, batch: Any) -> float:
        """Count what the mean in the loss runs over; batches are added up with this weight."""
        return float(len(batch))

    def after_update(self, losses: Mapping[str, float]) -> None:
        """Take note of an update's losses, means over its whole batch, for what is no parameter."""

    def sample_images(self) -> Image.Image | None:
        """Show on a sheet what the networks can do so far, or nothing."""
        return None

    @property
    def _no_split_modules(self) -> list[str]:
        """Name the classes that FSDP shards one by one: those that the networks' authors name."""
        there = {type(module).__name__ for module in self.modules()}
        named = (getattr(network, "_no_split_modules", None) or () for network in self.children())
        return sorted(there & {name for names in named for name in names})

    def forward(self, batch: Any | None) -> Any:
        """Compute the losses, or sample images if there is no batch.

        Both go through here because sharded networks gather their weights in ``forward`` alone.
        """
        return self._try_to_sample() if batch is None else self.losses(batch)

    def _try_to_sample(self) -> Image.Image | None:
        """Sample images if that is possible: a sheet is no reason to end a run.

        This happens inside of ``forward``, so that sharded networks come to its end. An error of
        one process alone must come when nothing more is gathered, or be about memory.
        """
        try:
            return self.sample_images()
        except (KosmosGError, RuntimeError, MemoryError) as error:
            no_room = isinstance(error, OutOfMemoryError) or is_out_of_memory(error)
            if not (no_room or isinstance(error, KosmosGError)):
                raise
            if no_room and isinstance(self, FSDPModule):
                raise  # in the middle of gathering, where the other processes wait for this one
            logger.warning("there is no sheet of samples this time: %s", error)
        free_memory()
        return None


class Stream(Protocol):
    """An endless, resumable stream of samples, such as ``data.mixture.Mixture``."""

    def __next__(self) -> Any:
        """Give the next sample."""
        ...

    @property
    def skipped(self) -> Mapping[str, Mapping[str, int]]:
        """How many samples of each source were skipped, by reason."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, as JSON can hold it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


def close_stream(stream: Stream) -> None:
    """End the threads of a stream, if it has some: it then has ``close``."""
    if close := getattr(stream, "close", None):
        close()


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """List the parameters that are trained, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}

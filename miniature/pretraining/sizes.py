"""Sizes of one network, as a file has them among those of others (``--config``)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmosg.errors import KosmosGError, TrainingError
from kosmosg.models.config import read_part
from kosmosg.utils.fingerprint import fingerprint_of


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """What a library's class takes to build one network.

    Attributes:
        file: Where they stand.
        part: Name of the object that holds them.
        values: What it holds.
    """

    file: Path
    part: str
    values: dict[str, Any]

    @classmethod
    def read(cls, file: Path, part: str) -> "NetworkSizes":
        """Read them from JSON.

        Raises:
            CheckpointError: If the file is no JSON or lacks the object.
        """
        return cls(file=file, part=part, values=read_part(file, part))

    def identity(self) -> str:
        """Return what a resumed run must have in common with the one it goes on with."""
        return fingerprint_of(self.values)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Explain what goes wrong while a network of these sizes is built.

        Raises:
            TrainingError: With file, object and reason.
        """
        try:
            yield
        except KosmosGError:
            raise
        except Exception as error:
            # The libraries' classes meet wrong sizes with errors of every kind.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise TrainingError(
                f"{self.file}: no network can be built of '{self.part}' ({reason}). Correct its "
                "entries."
            ) from error

    def compare(self, found: dict[str, Any], folder: Path, but: tuple[str, ...] = ()) -> None:
        """Check that a network which is there already has these sizes.

        Args:
            found: Its configuration.
            folder: Where it is, for the message.
            but: Entries that do not count.

        Raises:
            TrainingError: With both values of the first entry that differs.
        """
        for name, value in self.values.items():
            if name not in but and found.get(name) != value:
                raise TrainingError(
                    f"{self.file} has {name}={value!r} in '{self.part}', but the network in "
                    f"{folder} has {found.get(name)!r}. Correct the file, or name other weights."
                )

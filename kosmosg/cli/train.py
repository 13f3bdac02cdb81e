"""``train``: the three stages."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from tyro.conf import subcommand

from kosmosg.errors import TrainingError
from kosmosg.training.options import AlignOptions, InstructOptions, LmOptions


class TrainCommand:
    """What trains something."""

    def train(self) -> Path:
        """Train it, and return where the result is."""
        raise NotImplementedError

    def run(self) -> None:
        """Train it, and say where the result is.

        Raises:
            TrainingError: Naming what to install, if what only training needs is missing.
        """
        missing = [
            name for name in ("datasets", "tensorboard", "webdataset") if find_spec(name) is None
        ]
        if missing:
            raise TrainingError(
                f"Training needs {' and '.join(missing)}. Install what belongs to it, in the "
                "folder of the project: pip install -e '.[train]'."
            )
        result = self.train()
        if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
            print(result)


@dataclass(frozen=True, kw_only=True)
class Train(TrainCommand):
    """Train a stage."""

    stage: (
        Annotated[LmOptions, subcommand("lm")]
        | Annotated[AlignOptions, subcommand("align")]
        | Annotated[InstructOptions, subcommand("instruct")]
    )

    def train(self) -> Path:
        """Train the stage."""
        from kosmosg.training.setup import train_stage

        return train_stage(self.stage)

"""``train``: the three stages."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from kosmosg.data.options import DROP_CAPTION, DataOptions, EntityOptions, StreamOptions
from kosmosg.errors import TrainingError
from kosmosg.models.config import FULL_SIZE
from kosmosg.training.options import LoopOptions

if TYPE_CHECKING:
    from kosmosg.training.data import TrainingData
    from kosmosg.training.starting_weights import StartingWeights


@dataclass(frozen=True, kw_only=True)
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
        missing = [name for name in ("tensorboard", "webdataset") if find_spec(name) is None]
        if missing:
            raise TrainingError(
                f"Training needs {' and '.join(missing)}. Install what belongs to it, in the "
                "folder of the project: pip install -e '.[train]'."
            )
        result = self.train()
        if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
            print(result)


@dataclass(frozen=True, kw_only=True)
class StageCommand(TrainCommand):
    """What the stages of KOSMOS-G take.

    Attributes:
        weights: Weights folder to begin with, from convert, new or another stage.
    """

    weights: Path
    data: StreamOptions
    loop: LoopOptions

    def start(self) -> "StartingWeights":
        """Open what the stage begins with."""
        from kosmosg.training.starting_weights import StartingWeights

        return StartingWeights(directory=self.weights)


@dataclass(frozen=True, kw_only=True)
class Lm(StageCommand):
    """Stage 1: the language model, on texts with images.

    Attributes:
        tokens: Length of a packed sequence.
        packing_streams: Streams that documents are packed in; else as many as there are processes.
    """

    tokens: int = FULL_SIZE["decoder"]["max_target_positions"]
    packing_streams: Annotated[int | None, arg(aliases=["--lanes"])] = None

    def train(self) -> Path:
        """Train the stage."""
        from kosmosg.training.setup import train_lm

        data = training_data(self.data, self.loop)
        return train_lm(
            self.start(), data, self.loop, tokens=self.tokens, packing_streams=self.packing_streams
        )


@dataclass(frozen=True, kw_only=True)
class Align(StageCommand):
    """Stage 2: AlignerNet, on captions.

    Attributes:
        stable_diffusion: Folder or Hub id with CLIP's text encoder; else the weights folder.
        skip_padding: Measure no padded positions, as in the paper.
        no_frozen_dropout: Switch the frozen language model's dropout off, as in the paper.
    """

    stable_diffusion: str | None = None
    skip_padding: bool = False
    no_frozen_dropout: bool = False

    def train(self) -> Path:
        """Train the stage."""
        from kosmosg.training.setup import train_align

        return train_align(
            self.start(),
            training_data(self.data, self.loop),
            self.loop,
            stable_diffusion=self.stable_diffusion,
            count_padding=not self.skip_padding,
            frozen_dropout=not self.no_frozen_dropout,
        )


@dataclass(frozen=True, kw_only=True)
class Instruct(StageCommand):
    """Stage 3: everything, through the image decoder.

    Attributes:
        drop_caption: Probability that an edit's caption is left out.
        aligner_only: Train AlignerNet alone.
    """

    entity: EntityOptions
    drop_caption: float = DROP_CAPTION
    aligner_only: bool = False

    def train(self) -> Path:
        """Train the stage."""
        from kosmosg.training.setup import train_instruct

        return train_instruct(
            self.start(),
            training_data(self.data, self.loop),
            self.loop,
            entities=self.entity,
            drop_caption=self.drop_caption,
            aligner_only=self.aligner_only,
        )


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a stage."""

    stage: Lm | Align | Instruct

    def run(self) -> None:
        """Train it."""
        self.stage.run()


def training_data(data: DataOptions, loop: LoopOptions) -> "TrainingData":
    """Bring together what is read with the seed that decides its order."""
    from kosmosg.training.data import TrainingData

    return TrainingData(**vars(data), seed=loop.seed)

"""What a stage is told: what to begin with, what to read, how long, how fast and how exactly."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from kosmosg.data.options import DROP_CAPTION, EntityOptions, StreamOptions
from kosmosg.errors import TrainingError
from kosmosg.models.config import FULL_SIZE

StageName = Literal["lm", "align", "instruct"]
Precision = Literal["no", "bf16", "fp16"]
OptimizerName = Literal["adamw", "adafactor"]
SaveDtype = Literal["float32", "float16"]

# What may differ between a run and its resumption. None of these changes a loss but
# micro_batch_size: dropout is drawn otherwise, and where samples look at each other the loss
# depends on how a batch is cut (CLIP contrasts, the probe's BatchNorm, the padding of align).
FREE = (
    "output",
    "save_dtype",
    "save_every",
    "sample_every",
    "log_every",
    "keep",
    "micro_batch_size",
    "gradient_checkpointing",
)
# What may differ although it changes all that follows: the way out of a loss that is no number.
CHANGEABLE = ("learning_rate", "warmup_updates", "clip_norm")


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """Settings of a run; the optimizer's defaults are those of the authors' training scripts.

    Attributes:
        output: Folder of the run: checkpoints, logs, samples, and in the end the weights.
        updates: Updates in all.
        batch_size: Samples per update, over all processes.
        learning_rate: At its peak.
        warmup_updates: Updates of linear growth; linear decay to 0 follows.
        micro_batch_size: Samples that one process takes through the networks at once, and
            accumulates; else all of its share.
        optimizer: adafactor needs 8 bytes less than adamw for each trained weight; its learning
            rate is relative to the size of the weights, and betas and epsilon are not its own.
        weight_decay: Decoupled from the gradient.
        betas: Adam's two decay rates.
        epsilon: Adam's, in the denominator.
        clip_norm: Largest norm of the whole gradient.
        ema_decay: Keep an exponential moving average of the weights, and give that as the result.
        precision: Mixed precision of the networks; the trained weights stay in float32.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        save_dtype: Precision of the result.
        seed: Decides the order of the data, all noise and dropout.
        save_every: Updates between two checkpoints.
        sample_every: Updates between two sheets of sample images, of vae and instruct; 0 for none.
        log_every: Updates between two entries of the log.
        keep: Number of checkpoints that stay.

    Raises:
        TrainingError: Naming the option, its value and its bounds.
    """

    output: Path
    updates: Annotated[int, arg(aliases=["--steps"])]
    batch_size: int
    learning_rate: float = 1e-3
    warmup_updates: Annotated[int, arg(aliases=["--warmup-steps"])] = 375
    micro_batch_size: int | None = None
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    clip_norm: float = 2.0
    ema_decay: float | None = None
    precision: Precision = "no"
    gradient_checkpointing: bool = False
    save_dtype: SaveDtype = "float32"
    seed: int = 0
    save_every: int = 2000
    sample_every: int = 0
    log_every: int = 50
    keep: int = 2

    def __post_init__(self) -> None:
        micro, decay = self.micro_batch_size, self.ema_decay
        bounds = {
            "updates": (self.updates >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "micro_batch_size": (micro is None or micro >= 1, "at least 1"),
            "learning_rate": (0 < self.learning_rate < 1, "above 0 and below 1"),
            "warmup_updates": (self.warmup_updates >= 0, "at least 0"),
            "weight_decay": (0 <= self.weight_decay < 1, "from 0 to below 1"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "both from 0 to below 1"),
            "epsilon": (self.epsilon > 0, "above 0"),
            "clip_norm": (self.clip_norm > 0, "above 0"),
            "ema_decay": (decay is None or 0 < decay < 1, "above 0 and below 1"),
            "seed": (0 <= self.seed < 2**32, f"from 0 to {2**32 - 1}"),
            "save_every": (self.save_every >= 1, "at least 1"),
            "sample_every": (self.sample_every >= 0, "at least 0"),
            "log_every": (self.log_every >= 1, "at least 1"),
            "keep": (self.keep >= 1, "at least 1"),
        }
        for name, (good, wanted) in bounds.items():
            if not good:
                option, found = name.replace("_", "-"), getattr(self, name)
                raise TrainingError(f"--{option} is {found}; it must be {wanted}.")

    def learning_rate_at(self, step: int) -> float:
        """Compute the learning rate of an update, counted from 0."""
        if step < self.warmup_updates:
            return self.learning_rate * (step + 1) / self.warmup_updates
        left = (self.updates - step) / max(1, self.updates - self.warmup_updates)
        return self.learning_rate * min(1.0, left)

    def share(self, processes: int) -> int:
        """Compute the number of samples per update and process.

        Raises:
            TrainingError: If the batch cannot be shared out evenly.
        """
        if self.batch_size % processes:
            raise TrainingError(
                f"A batch of {self.batch_size} cannot be shared out evenly among {processes} "
                "processes. Choose a multiple of their number for --batch-size."
            )
        return self.batch_size // processes

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run has in common with the one it goes on with.

        All but ``CHANGEABLE`` must be the same.
        """
        found = {key: value for key, value in asdict(self).items() if key not in FREE}
        if self.optimizer == "adamw":  # runs that began before there was a choice have none
            del found["optimizer"]
        return found


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """What every stage of KOSMOS-G takes.

    Attributes:
        weights: Weights to begin with, a folder from convert, new or another stage, or a Hub id.
    """

    stage: ClassVar[StageName]
    weights: str | Path
    data: StreamOptions
    loop: LoopOptions


@dataclass(frozen=True, kw_only=True)
class LmOptions(StageOptions):
    """Stage 1: the language model, on texts with images.

    Attributes:
        tokens: Length of a packed sequence.
        packing_streams: Streams that documents are packed in; else as many as there are processes.
    """

    stage = "lm"
    tokens: int = FULL_SIZE["decoder"]["max_target_positions"]
    packing_streams: Annotated[int | None, arg(aliases=["--lanes"])] = None


@dataclass(frozen=True, kw_only=True)
class AlignOptions(StageOptions):
    """Stage 2: AlignerNet, on captions.

    Attributes:
        stable_diffusion: Folder or Hub id with CLIP's text encoder; else the weights folder.
        skip_padding: Measure no padded positions, as in the paper.
        no_frozen_dropout: Switch the frozen language model's dropout off, as in the paper.
    """

    stage = "align"
    stable_diffusion: str | None = None
    skip_padding: bool = False
    no_frozen_dropout: bool = False


@dataclass(frozen=True, kw_only=True)
class InstructOptions(StageOptions):
    """Stage 3: everything, through the image decoder.

    Attributes:
        drop_caption: Probability that an edit's caption is left out.
        aligner_only: Train AlignerNet alone.
    """

    stage = "instruct"
    entity: EntityOptions
    drop_caption: float = DROP_CAPTION
    aligner_only: bool = False

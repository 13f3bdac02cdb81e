"""What a stage takes on a card: memory, hours, and whether it fits."""

from dataclasses import dataclass, replace
from typing import Any

from kosmosg.errors import TrainingError
from kosmosg.training.cards import OVERHEAD, SAMPLES, Card, Run
from kosmosg.training.footprint import FLOAT32, Footprint, Pass, Sizes, find_footprint
from kosmosg.training.options import InstructOptions, LmOptions, OptimizerName, StageOptions

# What an optimizer keeps, in bytes a parameter; rows and columns are next to nothing.
MOMENTS: dict[OptimizerName, int] = {"adamw": 2 * FLOAT32, "adafactor": 0}
# An estimate is right to a quarter: what is beyond this many times the memory will not fit.
DOUBT = 1.25


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """A stage on a card.

    Attributes:
        footprint: Of the stage.
        ema: Whether a moving average of the weights is kept.
        cards: Number of cards; each has all weights.
        optimizer: What keeps its moments beside the weights.
    """

    footprint: Footprint
    optimizer: OptimizerName = "adamw"
    ema: bool = False
    cards: int = 1

    def memory(self, samples: int) -> float:
        """Compute the bytes that a card needs at most.

        The weights of all networks are in float32; each trained one has a gradient, its moments,
        and room for one more while the optimizer works, when no activations are left.

        Args:
            samples: In memory at once.
        """
        trained = self.footprint.trained
        kept = FLOAT32 * self.footprint.parameters
        kept += (FLOAT32 + MOMENTS[self.optimizer]) * trained
        kept += FLOAT32 * trained if self.ema else 0
        kept += FLOAT32 * trained if self.cards > 1 else 0  # on their way to the others
        return kept + max(self.footprint.activations(samples), FLOAT32 * trained) + OVERHEAD

    def largest(self, memory: float, most: int) -> int:
        """Find the most samples, a power of two, that fit into so many bytes; 0 if none do."""
        samples = 1
        if self.memory(samples) > memory:
            return 0
        while 2 * samples <= most and self.memory(2 * samples) <= memory:
            samples *= 2
        return samples

    def hours(self, run: Run, samples: int, card: Card, share: float) -> float:
        """Compute how long a run takes.

        Args:
            run: What is run.
            samples: In memory at once.
            card: One of the cards, which are all alike.
            share: Of its peak that it reaches.
        """
        flops = self.footprint.flops(samples) / samples * run.batch_size * run.updates
        return flops / (card.peak * share * self.cards) / 3600


def pass_of(options: StageOptions) -> Pass:
    """Say what goes through the networks of a run at once, with samples of average size."""
    stage = options.stage
    return Pass(
        stage=stage,
        tokens=options.tokens if isinstance(options, LmOptions) else SAMPLES[stage].tokens,
        images=SAMPLES[stage].images,
        precision=options.loop.precision,
        gradient_checkpointing=options.loop.gradient_checkpointing,
        aligner_only=isinstance(options, InstructOptions) and options.aligner_only,
    )


def check_room(sizes: Sizes, what: Pass, samples: int, free: float, **kept: Any) -> str:
    """Compare what a stage needs with the memory that is free, before anything is loaded.

    Args:
        sizes: Of the networks.
        what: Goes through them.
        samples: In memory at once.
        free: Bytes of the card.
        kept: What a card keeps besides, see ``StageEstimate``.

    Returns:
        What to say if it will be tight, or nothing.

    Raises:
        TrainingError: If it is too much by more than the estimate's doubt; with what would fit.
    """
    needed = StageEstimate(footprint=find_footprint(sizes, what), **kept).memory(samples)
    if needed <= free:
        return ""
    told = (
        f"With {samples} samples in memory at once, stage {what.stage} needs about "
        f"{needed / 1e9:.1f} GB (computed), and the card has {free / 1e9:.1f} GB free. "
        f"{find_remedy(sizes, what, samples, free, **kept)}"
    )
    if needed > DOUBT * free:
        raise TrainingError(told)
    return told


def find_remedy(sizes: Sizes, what: Pass, samples: int, free: float, **kept: Any) -> str:
    """Say what of a stage would fit into the memory that is free."""
    tried = [what, replace(what, gradient_checkpointing=True)]
    for each in tried if not what.gradient_checkpointing else tried[:1]:
        found = StageEstimate(footprint=find_footprint(sizes, each), **kept)
        if fitting := found.largest(free, samples):
            more = " with --gradient-checkpointing" if each is not what else ""
            return f"--micro-batch-size {fitting}{more} would fit."
    if what.stage == "instruct" and not what.aligner_only:
        alone = replace(what, gradient_checkpointing=True, aligner_only=True)
        found = StageEstimate(footprint=find_footprint(sizes, alone), **kept)
        if fitting := found.largest(free, samples):
            return (
                "The whole model does not fit; AlignerNet alone would: --aligner-only "
                f"--gradient-checkpointing --micro-batch-size {fitting}."
            )
    return "It does not fit with one sample either: take a larger card, or shard it over several."

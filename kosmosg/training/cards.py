"""Cards that one trains on, and how long the stages run: figures that an estimate begins with."""

from dataclasses import dataclass
from typing import Literal, get_args

from kosmosg.training.options import StageName

CardName = Literal["l4", "4090", "a40", "l40s", "a100-40", "a100-80", "h100"]
CARD_NAMES: tuple[CardName, ...] = get_args(CardName)
PresetName = Literal["published", "one-gpu"]

# The share of its peak that a card reaches in training: an assumption until it is measured.
SHARE = 0.3
# What CUDA, its libraries and gaps between tensors take beside them, in bytes: likewise.
OVERHEAD = 1.5e9


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card.

    Attributes:
        peak: Operations a second of dense matrix products in half precision, as its maker says.
        memory: In bytes.
    """

    peak: float
    memory: float


CARDS: dict[CardName, Card] = {
    "l4": Card(peak=121e12, memory=24e9),
    "4090": Card(peak=165e12, memory=24e9),
    "a40": Card(peak=150e12, memory=48e9),
    "l40s": Card(peak=362e12, memory=48e9),
    "a100-40": Card(peak=312e12, memory=40e9),
    "a100-80": Card(peak=312e12, memory=80e9),
    "h100": Card(peak=989e12, memory=80e9),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """How long a stage is trained.

    Attributes:
        updates: Number of updates.
        batch_size: Samples of an update, over all cards.
    """

    updates: int
    batch_size: int


# Paper, section 3.2, and the authors' scripts.
PUBLISHED: dict[StageName, Run] = {
    "lm": Run(updates=300_000, batch_size=576),
    "align": Run(updates=300_000, batch_size=3584),
    "instruct": Run(updates=200_000, batch_size=1024),
}
# For one card: stage 1 is Kosmos-2's, a tenth of stage 2, an epoch of 2.4 million samples.
ONE_GPU: dict[StageName, Run] = {
    "align": Run(updates=30_000, batch_size=3584),
    "instruct": Run(updates=2344, batch_size=1024),
}
PRESETS: dict[PresetName, dict[StageName, Run]] = {"published": PUBLISHED, "one-gpu": ONE_GPU}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample of average size: an assumption, which the data decide.

    Attributes:
        tokens: Its length, images included.
        images: Its images.
    """

    tokens: int
    images: int


SAMPLES: dict[StageName, Sample] = {
    "lm": Sample(tokens=2048, images=4),
    "align": Sample(tokens=40, images=0),
    "instruct": Sample(tokens=200, images=2),
}

"""``estimate``: what each stage of training takes on a card, before anything is trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmosg.errors import SettingError
from kosmosg.training.cards import CARDS, PRESETS, SAMPLES, SHARE, Card, CardName, PresetName, Run
from kosmosg.training.options import OptimizerName, Precision, StageName
from kosmosg.utils.checks import check_integer, check_number

if TYPE_CHECKING:
    from kosmosg.training.estimate import StageEstimate
    from kosmosg.training.footprint import Sizes

MOST = 64  # samples in memory at once, beyond which a card gains nothing


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimate operations, memory and hours of training.

    Attributes:
        stage: One stage; else all of the preset.
        preset: How long each stage is trained, see docs/training.md.
        card: The card.
        gpus: Their number.
        peak: TFLOP/s in half precision of another card.
        memory: GB of another card.
        share: Share of the peak that the card reaches: an assumption.
        price: Of one card for an hour, in any currency.
        weights: Weights folder whose sizes count; else the full size.
        precision: Mixed precision.
        micro_batch_size: Samples in memory at once; else as many as fit.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        aligner_only: Train AlignerNet alone in stage 3.
        optimizer: What keeps its moments beside the weights.
        ema: Keep a moving average of the weights.
        tokens: Of a sample, its images included, with --stage.
        images: Of a sample, with --stage.
    """

    stage: StageName | None = None
    preset: PresetName = "one-gpu"
    card: CardName = "a100-80"
    gpus: int = 1
    peak: float | None = None
    memory: float | None = None
    share: float = SHARE
    price: float | None = None
    weights: Path | None = None
    precision: Precision = "bf16"
    micro_batch_size: int | None = None
    gradient_checkpointing: bool = False
    aligner_only: bool = False
    optimizer: OptimizerName = "adamw"
    ema: bool = False
    tokens: int | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        check_integer("--gpus", self.gpus, 1, 100_000)
        check_number("--share", self.share, 0.001, 1)
        for name, value in (("--peak", self.peak), ("--memory", self.memory)):
            if value is not None:
                check_number(name, value, 0.001, 1e6)
        if self.price is not None:
            check_number("--price", self.price, 0, 1e6)
        if self.micro_batch_size is not None:
            check_integer("--micro-batch-size", self.micro_batch_size, 1, 1_000_000)
        for name, value, least in (("--tokens", self.tokens, 1), ("--images", self.images, 0)):
            if value is not None:
                check_integer(name, value, least, 1_000_000)
        if self.stage is None and not (self.tokens is None and self.images is None):
            raise SettingError("--tokens and --images are those of one stage. Give --stage, too.")
        if self.stage is not None and self.stage not in PRESETS[self.preset]:
            raise SettingError(
                f"The preset {self.preset} has no stage {self.stage}: it begins with a result of "
                "it. Give --preset published."
            )
        if self.precision == "no" and self.peak is None:
            raise SettingError(
                "The cards' peaks are those of half precision. With --precision no, give --peak."
            )

    def run(self) -> None:
        """Print the estimate."""
        from kosmosg.training.footprint import Sizes

        card = self._card()
        sizes = Sizes.of(self.weights) if self.weights else Sizes.full()
        print(
            f"computed for {self.gpus} × {card.peak / 1e12:g} TFLOP/s and {card.memory / 1e9:g} GB"
            f" at {self.share:.0%} of the peak, which is an assumption, precision {self.precision}"
        )
        hours = 0.0
        runs = PRESETS[self.preset]
        stages: list[StageName] = [self.stage] if self.stage else list(runs)
        for stage in stages:
            hours += self._tell(stage, runs[stage], sizes, card)
        if self.stage is None:
            print(f"together: {self._price(hours)}")

    def _card(self) -> Card:
        known = CARDS[self.card]
        return Card(
            peak=known.peak if self.peak is None else self.peak * 1e12,
            memory=known.memory if self.memory is None else self.memory * 1e9,
        )

    def _tell(self, stage: StageName, run: Run, sizes: "Sizes", card: Card) -> float:
        """Print what a stage takes, and return its hours."""
        from kosmosg.training.estimate import StageEstimate, find_remedy
        from kosmosg.training.footprint import Pass, find_footprint

        usual = SAMPLES[stage]
        what = Pass(
            stage=stage,
            tokens=usual.tokens if self.tokens is None else self.tokens,
            images=usual.images if self.images is None else self.images,
            precision=self.precision,
            gradient_checkpointing=self.gradient_checkpointing,
            aligner_only=self.aligner_only and stage == "instruct",
        )
        what = sizes.fitted(what)
        kept: dict[str, Any] = {"ema": self.ema, "cards": self.gpus, "optimizer": self.optimizer}
        found = StageEstimate(footprint=find_footprint(sizes, what), **kept)
        samples = self.micro_batch_size or found.largest(card.memory, MOST)
        print(
            f"{stage}: {run.updates:,} updates of {run.batch_size:,} samples, each of {what.tokens}"
            f" tokens with {what.images} images (an assumption)"
        )
        fits = samples and found.memory(samples) <= card.memory
        hours = found.hours(run, samples or 1, card, self.share)
        self._print_numbers(found, samples or 1)
        if fits:
            print(f"  {self._price(hours)}")
            return hours
        wanted = self.micro_batch_size or MOST
        remedy = find_remedy(sizes, what, wanted, card.memory, **kept)
        print(f"  does not fit into {card.memory / 1e9:g} GB. {remedy}")
        return hours

    def _print_numbers(self, found: "StageEstimate", samples: int) -> None:
        footprint = found.footprint
        print(
            f"  parameters: {footprint.parameters / 1e6:,.0f} million, trained "
            f"{footprint.trained / 1e6:,.0f} million\n"
            f"  operations of a sample: {footprint.flops(samples) / samples / 1e9:,.0f} GFLOP\n"
            f"  memory: {found.memory(samples) / 1e9:.1f} GB with {samples} in memory at once"
        )

    def _price(self, hours: float) -> str:
        told = f"{hours:,.1f} hours" if hours >= 0.1 else f"{hours * 60:,.1f} minutes"
        told += f", {hours * self.gpus:,.0f} of a card" if self.gpus > 1 else ""
        if self.price is None:
            return told
        return f"{told}, price {hours * self.gpus * self.price:,.2f}"

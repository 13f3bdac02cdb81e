"""``curate``: make training data, on any number of machines."""

from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, subcommand

from kosmosg.curation.options import (
    PER_SHARD,
    CaptionOptions,
    Compositional,
    EditOptions,
    ModelBatches,
)
from kosmosg.errors import CurationError
from kosmosg.utils.checks import check_integer

if TYPE_CHECKING:
    from collections.abc import Generator

    from kosmosg.curation.engine import Job, Wishes
    from kosmosg.curation.output import Ledger
    from kosmosg.curation.pipelines import Recipe

# What the extra brings, by the modules that are imported.
NEEDED = {"ray": "ray[data]", "pyarrow": "ray[data]", "scipy": "scipy", "webdataset": "webdataset"}
RAY = NEEDED["ray"]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where the work is done.

    Attributes:
        address: HOST:PORT of a Ray cluster, or auto; else this machine.
        cpus: Cores of this machine to use, without --address; else all.
        workers: STAGE=N or STAGE=NxGPUS: workers of a stage, and GPUs of each, such as
            caption=5x1. Stages: read; of openimages also caption, entities, masks, cut.
        in_process: One shard after the other, without Ray.
    """

    address: str | None = None
    cpus: int | None = None
    workers: tuple[str, ...] = ()
    in_process: bool = False

    def __post_init__(self) -> None:
        if self.cpus is not None:
            check_integer("--cpus", self.cpus, 1, 100_000)


@dataclass(frozen=True, kw_only=True)
class CurateCommand:
    """What all data sets take.

    Attributes:
        output: Folder of shards to write.
        per_shard: Samples that are tried for a shard.
    """

    source: Positional[Path]
    output: Positional[Path]
    per_shard: int = PER_SHARD
    engine: EngineOptions

    def __post_init__(self) -> None:
        check_integer("--per-shard", self.per_shard, 1, 100_000)

    def recipe(self) -> "Recipe":
        """Say what is made of what."""
        raise NotImplementedError

    def run(self) -> None:
        """Make what is not there yet.

        Raises:
            CurationError: If something is not installed, or not all could be made.
        """
        _require(self.engine)
        from kosmosg.curation.output import Ledger

        recipe = self.recipe()
        wishes = _parse_workers(self.engine.workers, [stage.name for stage in recipe.stages])
        ledger = Ledger(directory=self.output.resolve(), per_shard=self.per_shard)
        planned = len(recipe.source.listings)
        with ledger.held(recipe.settings):
            _make_missing(recipe, ledger, wishes, self.engine)
            ledger.end()
            if missing := sorted(set(range(planned)) - ledger.finished()):
                raise CurationError(
                    f"{len(missing)} of {planned} shards could not be made, such as number "
                    f"{missing[0]}; the messages above say why. Run the command again to try them "
                    "again."
                )


@dataclass(frozen=True, kw_only=True)
class CurateOpenImages(CurateCommand):
    """Compositional samples of any images.

    Attributes:
        source: Folder of images or of shards of them.
    """

    sample: Compositional
    batch: ModelBatches

    def recipe(self) -> "Recipe":
        """Say what is made of what."""
        from kosmosg.curation.pipelines import make_openimages

        return make_openimages(
            self.source, self.sample, per_shard=self.per_shard, batches=self.batch
        )


@dataclass(frozen=True, kw_only=True)
class CurateInstructPix2Pix(CurateCommand):
    """Edits of the CLIP-filtered set.

    Attributes:
        source: Folder with seeds.json.
    """

    sample: EditOptions

    def recipe(self) -> "Recipe":
        """Say what is made of what."""
        from kosmosg.curation.pipelines import make_instructpix2pix

        return make_instructpix2pix(self.source, self.sample, per_shard=self.per_shard)


@dataclass(frozen=True, kw_only=True)
class CurateCaptions(CurateCommand):
    """Captioned images that img2dataset wrote.

    Attributes:
        source: Its output folder.
    """

    sample: CaptionOptions

    def recipe(self) -> "Recipe":
        """Say what is made of what."""
        from kosmosg.curation.pipelines import make_captions

        return make_captions(self.source, self.sample, per_shard=self.per_shard)


@dataclass(frozen=True, kw_only=True)
class Curate:
    """Make training data."""

    set: (
        Annotated[CurateOpenImages, subcommand("openimages")]
        | Annotated[CurateInstructPix2Pix, subcommand("instructpix2pix")]
        | Annotated[CurateCaptions, subcommand("captions")]
    )

    def run(self) -> None:
        """Make them."""
        self.set.run()


def _require(engine: EngineOptions) -> None:
    """Say what is missing before anything is read."""
    missing = {
        package
        for module, package in NEEDED.items()
        if find_spec(module) is None and not (engine.in_process and package == RAY)
    }
    if missing:
        raise CurationError(
            f"Curation needs {' and '.join(sorted(missing))}: pip install -e '.[curation]'."
        )


def _make_missing(
    recipe: "Recipe", ledger: "Ledger", wishes: "Wishes", engine: EngineOptions
) -> None:
    """Make the shards that are not finished, and say of all of them what is in them."""
    from tqdm import tqdm

    from kosmosg.curation.engine import Job
    from kosmosg.curation.preview import write_report

    listings, finished = recipe.source.listings, ledger.finished()
    jobs = [
        Job(number=number, listing=listing)
        for number, listing in enumerate(listings)
        if number not in finished
    ]
    try:
        with (
            closing(_make(jobs, recipe, ledger, wishes, engine)) as numbers,
            tqdm(desc="curate", unit="shard", total=len(listings), initial=len(finished)) as bar,
        ):
            for _ in numbers:
                bar.update()
    finally:
        print(write_report(ledger, recipe.settings, len(listings)), end="")


def _make(
    jobs: "list[Job]",
    recipe: "Recipe",
    ledger: "Ledger",
    wishes: "Wishes",
    engine: EngineOptions,
) -> "Generator[int]":
    from kosmosg.curation.engine import connected, run_here, run_on_ray, share_out

    if not jobs:
        return
    if engine.in_process:
        yield from run_here(jobs, recipe.stages, ledger)
        return
    with connected(engine.address, engine.cpus) as has:
        workers = share_out(recipe.stages, has.get("CPU", 1.0), has.get("GPU", 0.0), wishes)
        yield from run_on_ray(jobs, recipe.stages, ledger, workers)


def _parse_workers(texts: tuple[str, ...], stages: list[str]) -> "Wishes":
    """Read ``caption=5x1``: five workers with a GPU each."""
    wishes: dict[str, tuple[int | None, float | None]] = {}
    for text in texts:
        stage, _, rest = text.partition("=")
        count, times, gpus = rest.partition("x")
        try:
            wishes[stage] = (int(count), float(gpus) if times else None)
        except ValueError:
            wishes[stage] = (0, None)
        if stage not in stages or not _possible(*wishes[stage]):
            raise CurationError(
                f"--workers {text}: wanted STAGE=N or STAGE=NxGPUS, such as {stages[0]}=2, with "
                f"one of {', '.join(stages)}, at least one worker, and GPUs up to 1 or whole."
            )
    return wishes


def _possible(count: int | None, gpus: float | None) -> bool:
    """Tell whether there can be so many workers: Ray divides one GPU, but not several."""
    return bool(count and count > 0) and (gpus is None or 0 <= gpus <= 1 or gpus in range(2, 65))

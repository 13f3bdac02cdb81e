"""``curate``: make training data, on any number of machines."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, subcommand

from kosmosg.curation.options import (
    PER_SHARD,
    CaptionOptions,
    CompositionalOptions,
    EditOptions,
    EngineOptions,
    ModelBatches,
)
from kosmosg.errors import CurationError
from kosmosg.utils.checks import check_integer

if TYPE_CHECKING:
    from kosmosg.curation.pipelines import Pipeline

# What the extra brings, by the modules that are imported.
NEEDED = {"ray": "ray[data]", "pyarrow": "ray[data]", "scipy": "scipy", "webdataset": "webdataset"}
RAY = NEEDED["ray"]


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

    def pipeline(self) -> "Pipeline":
        """Say what is made of what."""
        raise NotImplementedError

    def run(self) -> None:
        """Make what is not there yet.

        Raises:
            CurationError: If something is not installed, or as ``engine.curate`` does.
        """
        _require(self.engine)
        from kosmosg.curation.engine import curate
        from kosmosg.curation.output import OutputFolder

        output = OutputFolder(directory=self.output.resolve(), per_shard=self.per_shard)
        curate(self.pipeline(), output, self.engine)


@dataclass(frozen=True, kw_only=True)
class CurateOpenImages(CurateCommand):
    """Compositional samples of any images.

    Attributes:
        source: Folder of images or of shards of them.
    """

    sample: CompositionalOptions
    batch: ModelBatches

    def pipeline(self) -> "Pipeline":
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

    def pipeline(self) -> "Pipeline":
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

    def pipeline(self) -> "Pipeline":
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

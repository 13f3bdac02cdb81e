"""What is read and how it is varied, as a user says it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from kosmosg.errors import DataError

ImageFormat = Literal["PNG", "JPEG", "WEBP"]
# What stood before a = when data could be named in the authors' layout.
TSV_SETS = ("captions", "instructpix2pix", "openimages")
DROP_CAPTION = 0.5  # probability that an edit's caption is left out (the authors' scripts)

_WEIGHT = re.compile(r"(0|[1-9]\d*)(\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class NamedData:
    """One data set of a run.

    Attributes:
        path: Folder of shards.
        weight: How often it is read, compared with the others.
    """

    path: Path
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "NamedData":
        """Read ``FOLDER[:WEIGHT]``, such as ``shards/captions:2``.

        What is there as it stands is a folder, also with a colon in its name. Else a weight stands
        behind the last colon.

        Raises:
            DataError: If the weight is none, or a set in the authors' layout is named.
        """
        before, colon, number = text.rpartition(":")
        if Path(text).exists():
            return cls(path=Path(text))
        layout, equals, folder = text.partition("=")
        if equals and layout in TSV_SETS:
            raise DataError(
                f"{text!r}: what is in the authors' layout is made into shards first, by python -m "
                f"scripts.convert_tsv {layout} {folder.partition(':')[0]} SHARDS. Then name SHARDS."
            )
        if not colon:
            return cls(path=Path(text))
        if not before or not _WEIGHT.fullmatch(number):
            raise DataError(
                f"{text!r}: there is no such folder, and {number!r} is no weight. Write "
                "FOLDER:WEIGHT with a number such as 2 or 0.5, or a folder that is there."
            )
        return cls(path=Path(before), weight=float(number))


_SPEC = PrimitiveConstructorSpec(
    nargs=1,
    metavar="FOLDER[:WEIGHT]",
    instance_from_str=lambda words: NamedData.parse(words[0]),
    is_instance=lambda value: isinstance(value, NamedData),
    str_from_instance=lambda data: [str(data.path)],
)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What is read.

    Attributes:
        data: Folder of shards; repeat it to mix several by weight.
        min_side: Shortest side in pixels of a captioned image.
        bad_share: Share of bad samples that stops the run.

    Raises:
        DataError: If there are no data.
    """

    data: tuple[Annotated[NamedData, _SPEC], ...]
    min_side: int = 384  # the authors'
    bad_share: float = 0.2

    def __post_init__(self) -> None:
        if not self.data:
            raise DataError("There is nothing to read. Name at least one folder by --data.")


@dataclass(frozen=True, kw_only=True)
class StreamOptions(DataOptions):
    """What is read, over and over.

    Attributes:
        threads: Threads of each process that read ahead; 0 reads when asked.

    Raises:
        DataError: If there cannot be so many.
    """

    threads: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threads < 0:
            raise DataError(f"{self.threads} threads cannot read. Choose --threads from 0 on.")


@dataclass(frozen=True, kw_only=True)
class EntityOptions:
    """How often an entity's image and words vary (paper, section 2.3, and the authors' scripts).

    Attributes:
        keep_background: Probability that an entity's image shows what stands around it.
        drop_text: Probability that the words of all entities of a sample are left out.

    Raises:
        DataError: If one is no probability.
    """

    keep_background: float = 0.5
    drop_text: float = 0.5

    def __post_init__(self) -> None:
        check_probability("--keep-background", self.keep_background)
        check_probability("--drop-text", self.drop_text)


def check_probability(name: str, value: float) -> None:
    """Refuse what is no probability.

    Raises:
        DataError: Naming it.
    """
    if not 0 <= value <= 1:
        raise DataError(f"{name} is a probability, from 0 to 1; it cannot be {value}.")

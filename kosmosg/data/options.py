"""What is read and how it is varied, as a user says it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec

from kosmosg.errors import DataError

ImageFormat = Literal["PNG", "JPEG", "WEBP"]
# What stood before a = when data could be named in the authors' layout.
TSV_SETS = ("captions", "instructpix2pix", "openimages")
DROP_CAPTION = 0.5  # probability that an edit's caption is left out (the authors' scripts)

HUB = "hub:"  # what stands before a set on the Hub

_WEIGHT = re.compile(r"(0|[1-9]\d*)(\.\d+)?")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_SETTINGS = ("columns", "split", "config", "revision")


@dataclass(frozen=True, kw_only=True)
class NamedData:
    """One data set of a run.

    Attributes:
        path: Folder of shards or of tables; nothing for a set on the Hub.
        repository: Of the set on the Hub, ``owner/name``.
        weight: How often it is read, compared with the others.
        columns: Mapping of a table's columns to samples, a name or a TOML file; else the one that
            fits.
        split: Part of a table.
        config: Configuration of a set on the Hub; else its only one, or its default.
        revision: Branch, tag or commit of a set on the Hub; else its main branch.
    """

    path: Path | None = None
    repository: str | None = None
    weight: float = 1.0
    columns: str | None = None
    split: str = "train"
    config: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """What to call it in messages; parts of one set have different names."""
        split = f",split={self.split}" if self.split != "train" else ""
        config = f",config={self.config}" if self.config else ""
        return f"{f'{HUB}{self.repository}' if self.repository else self.path}{split}{config}"

    @property
    def public_name(self) -> str:
        """What to call it where others read it: a folder without where it lies."""
        return (
            f"{self.repository}@{self.revision}"
            if self.repository
            else str(self.path and self.path.name)
        )

    @classmethod
    def parse(cls, text: str) -> "NamedData":
        """Read ``FOLDER[:WEIGHT]`` or ``hub:OWNER/NAME[:WEIGHT]``, such as ``shards/captions:2``.

        What is there as it stands is a folder, also with a colon or comma in its name. Else a
        weight stands behind the last colon, and before it settings of a table, such as
        ``hub:owner/name,columns=edits,split=train:0.5``.

        Raises:
            DataError: If the weight or a setting is none, or a set in the authors' layout is named.
        """
        if not text.startswith(HUB) and Path(text).exists():
            return cls(path=Path(text))
        hub = HUB if text.startswith(HUB) else ""
        before, colon, number = text.removeprefix(hub).rpartition(":")
        if not colon:
            before, number = number, "1"
        layout, equals, folder = before.partition("=")
        if equals and layout in TSV_SETS:
            raise DataError(
                f"{text!r}: what is in the authors' layout is made into shards first, by python -m "
                f"scripts.convert_tsv {layout} {folder} SHARDS. Then name SHARDS."
            )
        if not _WEIGHT.fullmatch(number) or not (before or hub):
            if hub:
                raise DataError(
                    f"{text!r}: {number!r} is no weight. Write hub:OWNER/NAME:WEIGHT with a number "
                    "such as 2 or 0.5."
                )
            raise DataError(
                f"{text!r}: there is no such folder, and {number!r} is no weight. Write "
                "FOLDER:WEIGHT with a number such as 2 or 0.5, or a folder that is there."
            )
        if not hub and Path(before).exists():
            return cls(path=Path(before), weight=float(number))
        place, *settings = before.split(",")
        found: dict[str, Any] = {"weight": float(number), **_read_settings(text, settings)}
        if not hub:
            if unfit := sorted({"config", "revision"} & found.keys()):
                raise DataError(f"{text!r}: only a set on the Hub has a {unfit[0]}. Leave it out.")
            return cls(path=Path(place), **found)
        if not _REPOSITORY.fullmatch(place):
            raise DataError(
                f"{text!r}: {place!r} is no set on the Hub. Write hub:OWNER/NAME, such as "
                "hub:Geonmo/gcc12m_caption_only."
            )
        return cls(repository=place, **found)


def _read_settings(text: str, settings: Sequence[str]) -> dict[str, str]:
    """Read what stands behind the commas of a named set."""
    found: dict[str, str] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in _SETTINGS or not value or key in found:
            raise DataError(
                f"{text!r}: {setting!r} is not understood. Behind a comma may stand, once each, "
                f"{', '.join(f'{each}=…' for each in _SETTINGS)}."
            )
        found[key] = value
    return found


_SPEC = PrimitiveConstructorSpec(
    nargs=1,
    metavar="FOLDER[:WEIGHT]|hub:OWNER/NAME[:WEIGHT]",
    instance_from_str=lambda words: NamedData.parse(words[0]),
    is_instance=lambda value: isinstance(value, NamedData),
    str_from_instance=lambda data: [data.name],
)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What is read.

    Attributes:
        data: Folder of shards or tables, or set on the Hub; repeat it to mix several by weight.
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

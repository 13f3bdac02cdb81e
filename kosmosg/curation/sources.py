"""Where images come from: a folder of them, or WebDataset shards as img2dataset writes them.

A source is divided into shards before anything is read, in an order that depends on its names
alone.
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from kosmosg.curation.records import Record, RecordSource, Rejected, make_source
from kosmosg.data.bad_samples import BadSample
from kosmosg.data.encoding import is_image
from kosmosg.data.shards import read_range, scan_archive
from kosmosg.errors import CurationError
from kosmosg.prompts.images import UNREAD_SUFFIXES

logger = logging.getLogger(__name__)

BESIDE = ("json", "txt")  # what a downloader notes beside an image
_OF_IMG2DATASET = (".parquet", "_stats.json")  # about its shards, not about images
MAX_BYTES = 200 * 10**6  # as much as an image's file may have where it is opened
MAX_TEXT = 10**6  # bytes of a caption, or of what is noted beside an image
_SCANNERS = 8


class ByteRange(NamedTuple):
    """A file, or some bytes of it."""

    path: Path
    offset: int = 0
    size: int | None = None


class Lost(NamedTuple):
    """What stood behind the place where an archive is damaged."""

    problem: str


Place = ByteRange | Lost


@dataclass(frozen=True, kw_only=True)
class FolderListing:
    """Some samples of a folder, whose files are found by name.

    Attributes:
        root: The folder.
        names: One for each sample.
        find: Says for a root and a name where the files of that sample lie.
    """

    root: Path
    names: tuple[str, ...]
    find: Callable[[Path, str], Mapping[str, Place]]

    def records(self) -> list[Record]:
        """Find the files."""
        return [
            Record(key=printable(name), places=self.find(self.root, name)) for name in self.names
        ]


@dataclass(frozen=True, kw_only=True)
class ArchiveListing:
    """Some samples of a tar file, whatever is in them."""

    path: Path
    first: int
    count: int

    def records(self) -> list[Record]:
        """Find the samples in the archive."""
        return _read_archive(self.path)[self.first : self.first + self.count]


def open_images(path: Path, per_shard: int, *, one_per_name: bool = False) -> RecordSource:
    """Open a folder of images, or of shards of them (``.tar``), as img2dataset writes them.

    The log says how many other files there are.

    Args:
        path: The folder.
        per_shard: Samples for each shard.
        one_per_name: Take one image of those that differ in their suffix alone.

    Raises:
        CurationError: If it is none, or nothing is in it.
    """
    if path.is_file():
        raise CurationError(
            f"{path} is a file. Name a folder of images or of shards of them. What a list of "
            f"addresses names is fetched by img2dataset: pip install img2dataset; img2dataset "
            f"--url_list={path} --output_folder=IMAGES --output_format=webdataset "
            "--resize_mode=no; then name IMAGES."
        )
    if not path.is_dir():
        raise CurationError(f"{path} is not there. Name a folder of images or of shards of them.")
    files = list_files(path)
    if tars := [name for name in files if "/" not in name and name.endswith(".tar")]:
        _tell_others(path, set(files) - set(tars))
        return _open_tars(path, tars, per_shard)
    images = [name for name in files if is_image(name)]
    stems = {_stem(name) for name in images}
    _tell_others(
        path,
        (name for name in files if not is_image(name) and not _is_beside(name, stems)),
    )
    if one_per_name:
        # The first by the alphabet, of those that can be read.
        first = {_stem(name): name for name in sorted(images, key=_last_first, reverse=True)}
        images = sorted(first.values())
    return divide_folder("files", path, images, _find_image, per_shard)


def divide_folder(
    kind: str,
    path: Path,
    names: Sequence[str],
    find: Callable[[Path, str], Mapping[str, Place]],
    per_shard: int,
) -> RecordSource:
    """Divide the samples of a folder into shards.

    Args:
        kind: Of what; part of the source's identity.
        path: The folder.
        names: Of the samples, in their order.
        find: As in ``FolderListing``.
        per_shard: How many for each shard.

    Raises:
        CurationError: If there is none.
    """
    listings = [
        FolderListing(root=path, names=tuple(names[first : first + per_shard]), find=find)
        for first in range(0, len(names), per_shard)
    ]
    return make_source(kind, names, listings, path)


def list_files(path: Path) -> list[str]:
    """List the files below a folder by name.

    Raises:
        CurationError: If a folder cannot be listed: its files would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise CurationError(
            f"{error.filename} cannot be listed ({error.strerror}). Make it readable, or move it "
            f"out of {path}."
        ) from error

    found, seen = [], set[Path]()
    for folder, folders, names in os.walk(path, onerror=refuse, followlinks=True):
        folders.sort()  # so that always the same of two ways into a folder is taken
        here = Path(folder)
        if here.resolve() in seen:  # a link led back
            folders.clear()
            continue
        seen.add(here.resolve())
        found += [(here / name).relative_to(path).as_posix() for name in names]
    return sorted(found)


def read_file(place: Place, largest: int = MAX_BYTES) -> bytes:
    """Read a file, or some bytes of one.

    Args:
        place: Where it lies.
        largest: How many bytes it may have.

    Raises:
        Rejected: If it is not there, is no file, or is too large.
        BadSample: If its archive is damaged.
    """
    if isinstance(place, Lost):
        raise BadSample("broken-shard", place.problem)
    try:
        status = place.path.stat()
        if not S_ISREG(status.st_mode):  # a pipe would keep its readers waiting
            raise Rejected("unreadable", "not a regular file")
        size = status.st_size if place.size is None else place.size
        if not 0 <= size <= largest:
            raise Rejected("unreadable", f"{size / 1e6:.1f} MB, more than {largest // 10**6}")
        with place.path.open("rb") as file:
            return read_range(file, place.offset, size)
    except OSError as error:
        raise Rejected("unreadable", error.strerror or str(error)) from error


def printable(name: str) -> str:
    """Make a text of a name that may hold what is none, such as the bytes of a file's."""
    return re.sub("[\ud800-\udfff]", "\ufffd", name)


def _open_tars(path: Path, names: Sequence[str], per_shard: int) -> RecordSource:
    tars = [path / name for name in names]
    # Headers alone, but of each sample: on a network disk, waiting for them takes the time.
    with ThreadPoolExecutor(_SCANNERS) as pool:
        looks = list(pool.map(_look, tars))
    listings = [
        ArchiveListing(path=tar, first=first, count=min(per_shard, count - first))
        for tar, (count, _) in zip(tars, looks, strict=True)
        for first in range(0, count, per_shard)
    ]
    seen = (f"{tar.name} {digest}" for tar, (_, digest) in zip(tars, looks, strict=True))
    return make_source("tars", seen, listings, path)


def _find_image(root: Path, name: str) -> dict[str, Place]:
    """Find an image and what is noted beside it."""
    stem, _, suffix = name.rpartition(".")
    beside = {
        kind: ByteRange(file)
        for kind in BESIDE
        for written in (kind.upper(), kind)
        if (file := root / f"{stem}.{written}").is_file()
    }
    return {suffix.lower(): ByteRange(root / name), **beside}


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _last_first(name: str) -> tuple[bool, str]:
    """Order images by how much they are wanted, those that are not read last."""
    return Path(name).suffix.lower() in UNREAD_SUFFIXES, name


def _is_beside(name: str, stems: Container[str]) -> bool:
    """Tell whether a file belongs to an image, or is about a whole shard."""
    noted = Path(name).suffix.lower().removeprefix(".") in BESIDE and _stem(name) in stems
    return noted or name.endswith(_OF_IMG2DATASET)


def _tell_others(path: Path, names: Iterable[str]) -> None:
    """Say how many files are no images, by their suffixes."""
    counts = Counter(
        Path(name).suffix.lower() or "no suffix"
        for name in names
        if not name.endswith(_OF_IMG2DATASET)
    )
    if counts:
        told = ", ".join(f"{count} × {suffix}" for suffix, count in counts.most_common())
        logger.warning("%s: %d files are left out (%s)", path, counts.total(), told)


def _look(path: Path) -> tuple[int, str]:
    """Count the samples in an archive, and tell them from those of another one."""
    records = _read_archive(path)
    digest = hashlib.sha256()
    for record in records:
        digest.update(repr([(name, *place[1:]) for name, place in record.places.items()]).encode())
    return len(records), digest.hexdigest()


def _read_archive(path: Path) -> list[Record]:
    """Find all samples in an archive; what it has lost counts as one that fails."""
    scan = scan_archive(path, _split_name)
    whole: list[dict[str, Place]] = [
        {name: ByteRange(path, *place) for name, place in entry.items()} for entry in scan.entries
    ]
    lost: list[dict[str, Place]] = [
        {name: Lost(fault.detail) for name in ("jpg", "json")} for fault in scan.damage
    ]
    return [
        Record(key=f"{printable(path.name)}, sample {number}", places=places)
        for number, places in enumerate([*whole, *lost])
    ]


def _split_name(name: str) -> tuple[str | None, str]:
    """Divide the name of a file that is called by its suffix alone."""
    return _stem(name) or None, name.rpartition(".")[2]

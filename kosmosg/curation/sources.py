"""Where pictures come from: a folder, a list of files or addresses, or shards of pictures.

A source is divided into portions before anything is read, in an order that depends on its names
alone.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kosmosg.curation.lists import open_list
from kosmosg.curation.places import Lost, Place, Stretch
from kosmosg.curation.records import PICTURE, Draft, Source, make_source
from kosmosg.data.shards import IMAGE_EXTENSIONS, TarShard
from kosmosg.errors import CurationError

PICTURE_SUFFIXES = frozenset(
    f".{name}" for name in (*IMAGE_EXTENSIONS, "gif", "bmp", "tif", "tiff", "avif", "ppm")
)
URL_COLUMN = "OriginalURL"  # of the tables that Open Images publishes
_SCANNERS = 8


@dataclass(frozen=True, kw_only=True)
class Named:
    """Some samples of a folder, whose files are found by name.

    Attributes:
        root: The folder.
        names: One for each sample.
        find: Says for a root and a name where the files of that sample lie.
    """

    root: Path
    names: tuple[str, ...]
    find: Callable[[Path, str], Mapping[str, Place]]

    def drafts(self) -> list[Draft]:
        """Find the files."""
        return [
            Draft(key=printable(name), places=self.find(self.root, name)) for name in self.names
        ]


@dataclass(frozen=True, kw_only=True)
class Members:
    """Some samples of a tar file, whatever is in them."""

    path: Path
    first: int
    count: int

    def drafts(self) -> list[Draft]:
        """Find the samples in the archive."""
        return _archived(self.path)[self.first : self.first + self.count]


def open_pictures(path: Path, per_shard: int, column: str = URL_COLUMN) -> Source:
    """Open a source of pictures.

    Args:
        path: A folder of pictures, or of shards of them (``.tar``); or a file with a path or an
            address on each line; or a table (``.csv``, ``.tsv``) with a line of names.
        per_shard: Samples for each shard.
        column: Of a table.

    Raises:
        CurationError: If it is none of these, or nothing is in it.
    """
    if path.is_dir():
        return open_tars(path, per_shard) if any(path.glob("*.tar")) else _files(path, per_shard)
    if path.is_file():
        return open_list(path, per_shard, column)
    raise CurationError(
        f"{path} is not there. Name a folder of pictures or shards, a list of files or addresses "
        f"(one a line), or a table with a column {column}."
    )


def open_tars(path: Path, per_shard: int) -> Source:
    """Open a folder of tar files, in which the files of one sample share a key.

    Raises:
        CurationError: If there is no sample in them.
    """
    tars = sorted(path.glob("*.tar"))
    # Headers alone, but of each sample: on a network disk, waiting for them takes the time.
    with ThreadPoolExecutor(_SCANNERS) as pool:
        looks = list(pool.map(_look, tars))
    listings = [
        Members(path=tar, first=first, count=min(per_shard, count - first))
        for tar, (count, _) in zip(tars, looks, strict=True)
        for first in range(0, count, per_shard)
    ]
    seen = (f"{tar.name} {digest}" for tar, (_, digest) in zip(tars, looks, strict=True))
    return make_source("tars", seen, listings, path)


def bundle(
    kind: str,
    path: Path,
    names: Sequence[str],
    find: Callable[[Path, str], Mapping[str, Place]],
    per_shard: int,
) -> Source:
    """Divide the samples of a folder into portions.

    Args:
        kind: Of what; part of the source's identity.
        path: The folder.
        names: Of the samples, in their order.
        find: As in ``Named``.
        per_shard: How many for each shard.

    Raises:
        CurationError: If there is none.
    """
    listings = [
        Named(root=path, names=tuple(names[first : first + per_shard]), find=find)
        for first in range(0, len(names), per_shard)
    ]
    return make_source(kind, names, listings, path)


def walk(path: Path, suffixes: Iterable[str]) -> list[str]:
    """List the files below a folder that have one of some suffixes, by name.

    Raises:
        CurationError: If a folder cannot be listed: its files would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise CurationError(
            f"{error.filename} cannot be listed ({error.strerror}). Make it readable, or move it "
            f"out of {path}."
        ) from error

    wanted = frozenset(suffixes)
    found, seen = [], set[Path]()
    for folder, folders, names in os.walk(path, onerror=refuse, followlinks=True):
        folders.sort()  # so that always the same of two ways into a folder is taken
        here = Path(folder)
        if here.resolve() in seen:  # a link led back
            folders.clear()
            continue
        seen.add(here.resolve())
        found += [
            (here / name).relative_to(path).as_posix()
            for name in names
            if Path(name).suffix.lower() in wanted
        ]
    return sorted(found)


def printable(name: str) -> str:
    """Make a text of a name that may hold what is none, such as the bytes of a file's."""
    return re.sub("[\ud800-\udfff]", "\ufffd", name)


def _files(path: Path, per_shard: int) -> Source:
    return bundle("files", path, walk(path, PICTURE_SUFFIXES), _find_picture, per_shard)


def _find_picture(root: Path, name: str) -> dict[str, Place]:
    return {PICTURE: Stretch(root / name)}


def _look(path: Path) -> tuple[int, str]:
    """Count the samples in an archive, and tell them from those of another one."""
    drafts = _archived(path)
    digest = hashlib.sha256()
    for draft in drafts:
        digest.update(repr([(name, *place[1:]) for name, place in draft.places.items()]).encode())
    return len(drafts), digest.hexdigest()


def _archived(path: Path) -> list[Draft]:
    """Find all samples in an archive; what it has lost counts as one that fails."""
    scan = TarShard(path=path).scan()
    whole: list[dict[str, Place]] = [
        # A file of that name is none of a sample.
        {name: Stretch(path, *place) for name, place in entry.items() if name != PICTURE}
        for entry in scan.entries
    ]
    lost: list[dict[str, Place]] = [
        {name: Lost(fault.detail) for name in (PICTURE, "json")} for fault in scan.damage
    ]
    return [
        Draft(key=f"{printable(path.name)}, sample {number}", places=places)
        for number, places in enumerate([*whole, *lost])
    ]

"""Where pictures come from: a folder, a list of files or addresses, or shards of pictures.

A source is divided into portions before anything is read, in an order that depends on its names
alone. A portion holds where its entries are listed, not the entries: nine million addresses stay
in their file.
"""

import csv
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path

from kosmosg.curation.drafts import Draft, Listing
from kosmosg.curation.places import Address, Lost, Place, Stretch
from kosmosg.data.shards import IMAGE_EXTENSIONS, TarShard
from kosmosg.errors import CurationError

PICTURE_SUFFIXES = frozenset(
    f".{name}" for name in (*IMAGE_EXTENSIONS, "gif", "bmp", "tif", "tiff", "avif", "ppm")
)
TABLES = {".csv": ",", ".tsv": "\t"}
URL_COLUMN = "OriginalURL"  # of the tables that Open Images publishes
MISSING = "a row without an entry"
PICTURE = "picture"  # a single picture among the places of a draft
_SCANNERS = 8


@dataclass(frozen=True, kw_only=True)
class Source:
    """Samples to be made, divided into portions.

    Attributes:
        identity: Tells apart sources with other entries.
        listings: What is in each portion, by its number.
    """

    identity: str
    listings: Sequence[Listing]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Some lines of a list, one path or address each; or of a table, in one of its columns.

    Attributes:
        path: The list.
        offset: Where they begin, in bytes.
        size: How many bytes they are.
        column: Number of the column; nothing for a list.
    """

    path: Path
    offset: int
    size: int
    column: int | None

    def drafts(self) -> list[Draft]:
        """Read the lines."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read(self.size).decode("utf-8" if self.offset else "utf-8-sig")
        # Lines as in the file itself: other line breaks of Unicode may stand in a title.
        entries = _entries(StringIO(text, newline="\n"), self.path, self.column)
        return [
            Draft(key=entry or MISSING, places={PICTURE: _place(entry, self.path.parent)})
            for entry in entries
        ]


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
        return _list_lines(path, per_shard, column)
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
    return _source("tars", seen, listings, path)


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
    return _source(kind, names, listings, path)


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


def _list_lines(path: Path, per_shard: int, name: str) -> Source:
    """Find where the portions of a list begin."""
    with path.open("rb") as file:
        lines = _Counted(file, path)
        try:
            column, starts = _find_starts(lines, path, per_shard, name)
        except csv.Error as error:
            raise CurationError(
                f"{path} is no table before byte {lines.end} ({error}). A quotation mark that is "
                "not closed may be the cause; mend it, or save the addresses as a list."
            ) from error
    listings = [
        Lines(path=path, offset=start, size=end - start, column=column)
        for start, end in pairwise([*starts, lines.end])
    ]
    return _source("lines", (lines.digest.hexdigest(), str(column)), listings, path)


def _find_starts(
    lines: "_Counted", path: Path, per_shard: int, name: str
) -> tuple[int | None, list[int]]:
    """Return the column of a table, and the places in bytes where portions begin."""
    table = path.suffix.lower() in TABLES
    column = _find_column(lines, path, name) if table else None
    starts: list[int] = []
    start = lines.end
    for number, _ in enumerate(_entries(lines, path, column)):
        if number % per_shard == 0:
            starts.append(start)
        start = lines.end
    return column, starts


class _Counted:
    """The lines of a file, and how many bytes those that were taken have."""

    def __init__(self, file: Iterable[bytes], path: Path):
        self._file, self._path = iter(file), path
        self.end = 0
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self.digest.update(line)
        begins, self.end = self.end, self.end + len(line)
        try:
            return line.decode("utf-8" if begins else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise CurationError(
                f"{self._path} is no UTF-8 text at byte {begins} ({error.reason}). Save it as such."
            ) from error


def _entries(lines: Iterable[str], path: Path, column: int | None) -> Iterator[str]:
    """Read the entries of some lines; those that are blank are none."""
    if column is None:
        yield from (line.strip() for line in lines if line.strip())
        return
    for row in _rows(lines, path):
        if row:
            # One that is missing counts as a sample that cannot be had.
            yield row[column].strip() if len(row) > column else ""


def _find_column(lines: Iterator[str], path: Path, name: str) -> int:
    header = next(_rows(lines, path), [])
    if name not in header:
        raise CurationError(
            f"{path} has no column {name!r}, but {', '.join(map(repr, header)) or 'nothing'}. "
            "Name one of them."
        )
    return header.index(name)


def _rows(lines: Iterable[str], path: Path) -> Iterator[list[str]]:
    # Strictly: else a quotation mark that is never closed would swallow all that follows.
    return csv.reader(lines, delimiter=TABLES[path.suffix.lower()], strict=True)


def _place(entry: str, folder: Path) -> Place:
    if not entry:
        return Lost("nothing stands in its row", "columns")
    if "://" in entry:
        return Address(entry)
    return Stretch(folder / entry)


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


def _source(kind: str, seen: Iterable[str], listings: Sequence[Listing], path: Path) -> Source:
    if not listings:
        raise CurationError(f"There is nothing in {path} to make samples of.")
    digest = hashlib.sha256(kind.encode())
    for each in seen:
        digest.update(b"\0" + os.fsencode(each))
    return Source(identity=f"{kind}:{digest.hexdigest()[:16]}", listings=listings)

"""Lists of pictures: one path or address on each line, or in a column of a table.

A portion holds where its lines stand, not the lines: nine million addresses stay in their file.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from pathlib import Path

from kosmosg.curation.places import Address, Lost, Place, Stretch
from kosmosg.curation.records import PICTURE, Draft, Source, make_source
from kosmosg.errors import CurationError

TABLES = {".csv": ",", ".tsv": "\t"}
MISSING = "a row without an entry"


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


def open_list(path: Path, per_shard: int, name: str) -> Source:
    """Find where the portions of a list begin.

    Args:
        path: A file with an entry on each line; or a table (``.csv``, ``.tsv``).
        per_shard: Entries for each shard.
        name: Of a table's column.

    Raises:
        CurationError: If it is no text, no table, has no such column, or nothing is in it.
    """
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
    return make_source("lines", (lines.digest.hexdigest(), str(column)), listings, path)


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

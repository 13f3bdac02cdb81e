"""Shards: WebDataset's tar files, in which the files of one sample share a key.

Archives are written by the ``webdataset`` library. Its reader takes a shard as a stream, in which
the n-th sample costs all those before it; here the headers are read once and samples by their
place, so that a run resumes, and several machines share a shard, without reading what they do not
need. Hence only local, uncompressed archives; but the files of a sample need not be neighbours, and
a key may have dots. What the files hold is ``encoding``'s.
"""

import math
import tarfile
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from webdataset.tariterators import base_plus_ext
from webdataset.writer import TarWriter

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.encoding import decode_sample, encode_sample
from kosmosg.data.options import ImageFormat
from kosmosg.data.scan_cache import WORTH_KEEPING, Entries, Place, kept_scan
from kosmosg.data.schema import CaptionRules, Sample, Scan, Shard
from kosmosg.errors import DataError
from kosmosg.utils.files import atomic_file
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of

SplitName = Callable[[str], tuple[str | None, str | None]]
KEPT = 64  # scans: the streams of a process drift apart, and each set has a shard of its own
_SAMPLED = 16  # shards of a set that are looked into to tell it from others
_JSON = ".json"
_BLOCK = 512  # of a tar file


@dataclass(frozen=True, kw_only=True)
class TarShard:
    """One shard."""

    path: Path
    rules: CaptionRules = field(default_factory=CaptionRules)

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    def scan(self) -> Scan:
        """Read the headers; an entry says where each file of a sample lies."""
        return scan_archive(self.path)

    def expect(self) -> None:
        """Do nothing: samples are read from where they lie."""

    def read(self, entry: Mapping[str, Place], generator: np.random.Generator) -> Sample:
        """Read one sample; there is nothing to choose in it."""
        try:
            with self.path.open("rb") as file:
                return decode_sample(
                    entry.keys(), lambda name: read_range(file, *entry[name]), self.rules
                )
        except OSError as error:
            raise BadSample("unreadable", str(error)) from error


def open_shards(directory: str | Path, rules: CaptionRules | None = None) -> tuple[TarShard, ...]:
    """List the shards of a folder.

    Raises:
        DataError: If there is none.
    """
    paths = sorted(Path(directory).glob("*.tar"))
    if not paths:
        raise DataError(
            f"There are no shards (*.tar) in {directory}, and no tables (*.parquet, *.jsonl). Name "
            "a folder that has some, or a set on the Hub as hub:OWNER/NAME."
        )
    rules = rules or CaptionRules()
    return tuple(TarShard(path=path, rules=rules) for path in paths)


def fingerprint_shards(shards: Sequence[Shard]) -> str:
    """Tell apart sets of shards: by their names, their sizes, and samples of what is in some.

    Where they lie does not count.

    Raises:
        DataError: If one cannot be read.
    """
    try:
        sizes = [[shard.name, shard.path.stat().st_size] for shard in shards]
        chosen = shards[:: math.ceil(len(shards) / _SAMPLED)]
        return fingerprint_of([sizes, [fingerprint(shard.path) for shard in chosen]])
    except OSError as error:
        raise DataError(f"A shard cannot be read: {error}. Mend the data.") from error


def read_range(file: Any, offset: int, size: int) -> bytes:
    """Read a stretch of an open file.

    Raises:
        BadSample: If the file ends before it.
    """
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise BadSample("unreadable", f"the file ends {size - len(data)} bytes too early")
    return data


def write_shard(
    samples: Iterable[Sample], path: Path, *, first_key: int = 0, image_format: ImageFormat = "PNG"
) -> None:
    """Write samples as one shard, which appears when everything is in it.

    Args:
        samples: Anything that yields samples.
        path: The file; its folder must be there.
        first_key: Number of the first sample, so that keys differ from shard to shard.
        image_format: Of the images; PNG and WebP are lossless.
    """
    encoded = (encode_sample(sample, image_format) for sample in samples)
    write_files(encoded, path, first_key=first_key)


def write_files(samples: Iterable[Mapping[str, bytes]], path: Path, *, first_key: int = 0) -> None:
    """Write samples that are encoded already as one shard, as ``write_shard`` does.

    Args:
        samples: For each, its files by their names behind the key, such as ``target.png``.
        path: The file; its folder must be there.
        first_key: Number of the first sample, so that keys differ from shard to shard.
    """
    with (
        atomic_file(path) as unfinished,
        unfinished.open("wb") as file,
        TarWriter(file, mtime=0) as writer,
    ):
        for key, files in enumerate(samples, start=first_key):
            writer.write({"__key__": f"{key:09d}", **files})


def shard_name(number: int) -> str:
    """Name the shards of a folder so that their order is that of the alphabet."""
    return f"{number:06d}.tar"


def scan_archive(path: Path, split: SplitName = base_plus_ext) -> Scan:
    """Find the samples of an archive, in the order of their first files.

    ``KEY.json`` says what is a key, so that keys may have dots. Files of one key belong together
    wherever they stand; where the same one comes again behind those of another key, another sample
    begins, as in archives that were put together. Hidden files are none of a sample.

    What was found is kept and shared, so that nobody may change it, until the file is another one.

    Args:
        path: The archive.
        split: Divides the name of a file without such a JSON into a key and the rest.
    """
    try:
        status = path.stat()
        return _scan_kept(path, split, status.st_size, status.st_mtime_ns)
    except OSError as error:
        return Scan(entries=(), damage=(BadSample("broken-shard", str(error)),))
    except _Damaged as found:
        return found.scan


class _Damaged(Exception):
    """Takes what was found past what keeps it: a damaged archive may be whole the next time."""

    def __init__(self, scan: Scan):
        super().__init__()
        self.scan = scan


@lru_cache(KEPT)  # which threads may share
def _scan_kept(path: Path, split: SplitName, size: int, changed: int) -> Scan:
    if size < WORTH_KEEPING:
        scan = _scan(path, split)
    else:
        identity = [str(path.resolve()), size, changed, f"{split.__module__}.{split.__qualname__}"]
        scan = kept_scan(identity, lambda: _scan(path, split))
    if scan.damage:
        raise _Damaged(scan)
    return scan


def _scan(path: Path, split: SplitName) -> Scan:
    damage: list[BadSample] = []

    def note(problem: str) -> None:
        damage.append(BadSample("broken-shard", problem))

    # Of a million files, so that nothing but names and numbers is held for each.
    names, places = [], array("q")
    for name, place in _members(path, note):
        names.append(name)
        places.extend(place)
    keys = {name[: -len(_JSON)] for name in names if name.lower().endswith(_JSON)}
    kinds: dict[str, int] = {}
    latest: dict[str, tuple[int, int]] = {}  # of each key: the sample, and a bit for each kind
    files, count, before = array("q"), 0, None
    for row, name in enumerate(names):
        key, kind = _find_owner(name, keys) or split(name)
        if key is None or kind is None:
            continue  # a name without a dot
        number = kinds.setdefault(kind.lower(), len(kinds))
        sample, there = latest.get(key, (-1, 0))
        if sample < 0 or (there >> number & 1 and key != before):
            sample, there, count = count, 0, count + 1
        if there >> number & 1:
            note(f"{name}: a duplicate, of which the first one is taken")
        else:
            files.extend((sample, number, *places[2 * row : 2 * row + 2]))
        latest[key] = sample, there | 1 << number
        before = key
    return Scan(entries=Entries.of(list(kinds), files), damage=tuple(damage))


def _find_owner(name: str, keys: Container[str]) -> tuple[str, str] | None:
    """Find the longest key that a name begins with, and return it and the rest."""
    key = name
    while "." in key.rpartition("/")[2]:
        key = key.rpartition(".")[0]
        if key in keys:
            return key, name[len(key) + 1 :]
    return None


def _members(path: Path, note: Callable[[str], None]) -> Iterator[tuple[str, Place]]:
    """Yield the names of an archive's files, and where each begins and how long it is."""
    try:
        if not path.is_file():  # a pipe would keep its readers waiting
            raise ValueError("it is no regular file")
        with tarfile.open(path, "r:") as archive:
            begins, kept = -1, vars(archive)["members"]
            for member in archive:
                kept.clear()  # or it would hold hundreds of bytes for each
                if member.size < 0 or archive.offset <= begins:
                    raise ValueError(f"a size that cannot be, at byte {member.offset}")
                begins = archive.offset
                hidden = member.name.rpartition("/")[2].startswith(".")
                if member.isreg() and not hidden:
                    yield member.name, (member.offset_data, member.size)
            end = archive.offset
        # tarfile takes a garbled or missing header for the end of the archive.
        with path.open("rb") as file:
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):
                note(f"it is cut off or garbled at byte {end}")
    except Exception as error:  # noqa: BLE001  tarfile fails on garbled headers in any way
        note(str(error))

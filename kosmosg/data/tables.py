"""Tables, such as parquet, on the Hub or in a folder: one reader for all, through ``datasets``.

The library finds a set's files and reads them piece by piece (a row group of parquet, a file of any
other format), here or over the network. Its own shuffling cannot be taken up again exactly, so each
piece is a shard like any other: read as a whole when its turn comes, its rows in an order of the
seed. Which columns make a sample is ``columns``'s.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import datasets
import httpx2
import numpy as np
import pyarrow
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.columns import Columns, choose_columns
from kosmosg.data.opening import find_tables
from kosmosg.data.options import NamedData
from kosmosg.data.schema import CaptionRules, Sample, Scan
from kosmosg.errors import DataError
from kosmosg.utils.files import reason
from kosmosg.utils.fingerprint import fingerprint, fingerprint_of
from kosmosg.utils.hub import explain, explain_gate

# What `datasets` calls its readers of tables; those of images or films alone have no texts.
READERS = ("parquet", "arrow", "json", "csv", "text", "webdataset")
_THREADS = 16  # that look into a set's files at once: most of the time goes into waiting
_SAMPLED = 16  # files of a set that are looked into to tell it from others
# The way is broken and not the data: what comes is not to depend on it, so the run ends.
_UNREACHABLE = (ConnectionError, TimeoutError, HfHubHTTPError, httpx2.HTTPError)
_ROWS = 1 << 40  # at once: all that there are
_EMPTY = pyarrow.table({})
_loaded: WeakValueDictionary["TableShard", "_Table"] = WeakValueDictionary()
_loading = Lock()
_expected: dict["TableShard", Future[pyarrow.Table]] = {}
_fetching = ThreadPoolExecutor(4, "kosmosg-tables")  # a piece for each of as many sets


@dataclass(frozen=True, kw_only=True, eq=False)
class TableShard:
    """One piece of a table.

    Attributes:
        path: The file that it is in; on the Hub, what it is called there.
        file: The file, as ``datasets`` streams it.
        piece: Number of the piece in it, and how many there are.
        columns: What makes a sample.
        rules: What to read of captions.
        folder: In which images lie that are given by name.
    """

    path: Path
    file: Any
    piece: tuple[int, int]
    columns: Columns
    rules: CaptionRules
    folder: Path | None

    @property
    def name(self) -> str:
        """The file and the piece."""
        return f"{self.path.name}, piece {self.piece[0] + 1} of {self.piece[1]}"

    def scan(self) -> Scan:
        """Read the piece; an entry is a row.

        Raises:
            DataError: If what it lies on cannot be reached.
        """
        with _loading:  # several streams of a process are at the same place
            table = _loaded.get(self)
            if table is None:
                try:
                    begun = _expected.pop(self, None)
                    table = _loaded[self] = _Table(begun.result() if begun else self._load())
                except Exception as error:
                    # Each format has errors of its own. Of a commit no file can be missing.
                    gone = isinstance(error, FileNotFoundError | PermissionError)
                    if isinstance(error, _UNREACHABLE) or (gone and self.folder is None):
                        raise DataError(
                            f"{self.name} cannot be reached any more ({reason(error)}). Start the "
                            "same command again later; it goes on from its last checkpoint."
                        ) from error
                    fault = BadSample("broken-shard", reason(error))
                    return Scan(entries=(), damage=(fault,))
        return Scan(entries=table)

    def expect(self) -> None:
        """Read the piece beforehand: over the network that takes as long as using it."""
        if self not in _loaded and self not in _expected:
            _expected[self] = _fetching.submit(self._load)

    def read(self, entry: "_Place", generator: np.random.Generator) -> Sample:
        """Make a sample of a row."""
        return self.columns.sample(entry.row(), self.rules, self.folder, generator)

    def _load(self) -> pyarrow.Table:
        number, count = self.piece
        rows = self.file if count == 1 else self.file.shard(count, number)
        wanted = self.columns.read_of(self.rules)
        parts = [
            part.select([name for name in wanted if name in part.column_names])
            for part in rows.with_format("arrow").iter(batch_size=_ROWS)
        ]
        return pyarrow.concat_tables(parts, promote_options="permissive") if parts else _EMPTY


class _Table(Sequence["_Place"]):
    """The rows of a piece; it stays in memory while somebody is in it."""

    def __init__(self, table: pyarrow.Table):
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, place: Any) -> Any:
        return _Place(self, range(len(self))[place])


@dataclass(frozen=True)
class _Place:
    """Where a row is; it is decoded when it is read, by the thread that reads it."""

    table: _Table
    number: int

    def row(self) -> Mapping[str, Any]:
        return self.table.table.slice(self.number, 1).to_pylist()[0]


def open_table(data: NamedData, rules: CaptionRules) -> tuple[TableShard, ...]:
    """List the pieces of a set.

    Args:
        data: The set; one on the Hub with its commit as the revision.
        rules: What to read of captions.

    Raises:
        DataError: If it cannot be had, has no such split, or no mapping fits its columns.
    """
    return _open(data, rules, identify_table(data))


def identify_table(data: NamedData) -> str:
    """Tell apart what tables hold: on the Hub by their commit, here by their files and content.

    Raises:
        DataError: If a file cannot be read.
    """
    columns = _identify_columns(data.columns)
    if data.repository:
        return f"{data.repository}@{data.revision}/{data.config}/{data.split}/{columns}"
    assert data.path is not None
    try:
        paths = find_tables(data.path)
        sizes = [[str(each.relative_to(data.path)), each.stat().st_size] for each in paths]
        chosen = [fingerprint(each) for each in paths[:: -(-len(paths) // _SAMPLED) or 1]]
    except OSError as error:
        raise DataError(f"A table cannot be read: {error}. Mend the data.") from error
    return fingerprint_of([sizes, chosen, data.split, columns])


def _identify_columns(named: str | None) -> str | None:
    """Tell apart mappings: one in a file by what stands there, wherever that is."""
    if named is None or not named.endswith(".toml") or not Path(named).is_file():
        return named
    return fingerprint(Path(named))


@lru_cache(8)  # the streams of a process share them
def _open(data: NamedData, rules: CaptionRules, _: str) -> tuple[TableShard, ...]:
    datasets.disable_progress_bars()
    try:
        builder = _find(data)
        if builder.name == "parquet":
            builder.config.on_bad_files = "skip"  # here only the columns are looked for
        files = _choose_split(data, builder)
        rows = builder.as_streaming_dataset(split=data.split)
        columns = choose_columns(data, rows.column_names or list(next(iter(rows))))
        if builder.name == "parquet":  # whose columns lie apart: the others are not even fetched
            wanted = list(columns.read_of(rules))
            features = datasets.Features({name: rows.features[name] for name in wanted})
            again = _find(data, columns=wanted, features=features)
            rows = again.as_streaming_dataset(split=data.split)
        with ThreadPoolExecutor(_THREADS) as pool:
            cut = list(pool.map(partial(_cut, rows), range(rows.num_shards)))
    except DataError:
        raise
    except Exception as error:
        # The library's own errors, those of its readers, the Hub's client and its HTTP library.
        raise _cannot_open(data, error) from error
    return tuple(
        TableShard(
            path=path,
            file=file,
            piece=(number, count),
            columns=columns,
            rules=rules,
            folder=data.path,
        )
        for path, (file, count) in zip(files, cut, strict=True)
        for number in range(count)
    )


def _find(data: NamedData, **options: Any) -> Any:
    """Let the library find a set's files; nothing of a set is run."""
    if data.repository:
        return datasets.load_dataset_builder(
            data.repository, data.config, revision=data.revision, **options
        )
    assert data.path is not None
    files = find_tables(data.path)
    if files and files[0].suffix != ".parquet":
        # By itself it would take the images beside them for the data.
        return datasets.load_dataset_builder("json", data_files={"train": list(map(str, files))})
    return datasets.load_dataset_builder(str(data.path), **options)


def _choose_split(data: NamedData, builder: Any) -> list[Path]:
    """List the files of a split, of a set of tables."""
    splits = builder.config.data_files or {}
    if builder.name not in READERS:
        raise DataError(
            f"{data.name} is of the kind {builder.name}, which has no table. Make shards of it "
            "(docs/curation.md), or a folder of parquet."
        )
    if data.split not in splits:
        raise DataError(
            f"{data.repository or data.path} has no split {data.split!r}. Choose one: split="
            f"{' or split='.join(splits) or 'NAME'}."
        )
    return [Path(file) for file in splits[data.split]]


def _cut(rows: Any, number: int) -> tuple[Any, int]:
    """Cut a file into pieces; one that cannot be looked into is a piece that is damaged."""
    file = rows.shard(rows.num_shards, number)
    try:
        pieces = file.reshard()
        return pieces, pieces.num_shards
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, _UNREACHABLE):
            raise
        return file, 1


def _cannot_open(data: NamedData, error: BaseException) -> DataError:
    """Say why a set cannot be opened; what the Hub's client has said is behind other errors."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError | OfflineModeIsEnabled):
        cause = cause.__cause__ or cause.__context__
    if data.repository and isinstance(cause, Exception):
        return DataError(explain(cause, data.repository))
    said = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    if data.repository and isinstance(error, DatasetNotFoundError) and "gated" in said:
        return DataError(explain_gate(data.repository))
    if isinstance(error, ConnectionError):
        return DataError(
            f"{data.name} cannot be reached ({said}). Check the connection, HF_ENDPOINT and "
            "HF_HUB_OFFLINE."
        )
    return DataError(
        f"{data.name} cannot be opened ({said}). Name a folder of shards or "
        "tables, or a set on the Hub, with config=NAME if it has several configurations."
    )

"""A set as it is named on the command line → its shards, of either kind."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from kosmosg.data.options import NamedData
from kosmosg.data.schema import CaptionRules, Shard
from kosmosg.data.shards import fingerprint_shards, open_shards
from kosmosg.errors import DataError


def open_data(data: NamedData, rules: CaptionRules) -> Sequence[Shard]:
    """List the shards of a set, or the pieces of its tables.

    Raises:
        DataError: If it is not there, or cannot be read as it is named.
    """
    if not _is_table(data):
        assert data.path is not None
        return open_shards(data.path, rules)
    from kosmosg.data.tables import open_table

    return open_table(data, rules)


def identify_data(data: NamedData) -> str:
    """Tell a set apart from others, wherever it lies.

    Raises:
        DataError: If it is not there.
    """
    if not _is_table(data):
        assert data.path is not None
        return fingerprint_shards(open_shards(data.path))
    from kosmosg.data.tables import identify_table

    return identify_table(data)


def find_tables(folder: Path) -> list[Path]:
    """List the tables of a folder: parquet, or else JSON with images beside it."""
    parquet = sorted(folder.rglob("*.parquet"))
    listed = sorted([*folder.glob("*.jsonl"), *folder.glob("*.json")])
    return parquet or [each for each in listed if each.name != "dataset_infos.json"]


def _is_table(data: NamedData) -> bool:
    """Tell a table from shards; the library for tables takes two seconds to import."""
    if data.path is not None:
        shards = any(data.path.glob("*.tar"))
        if shards and (data.columns or data.split != "train"):
            raise DataError(
                f"{data.name} is a folder of shards, which have no columns and no splits. Name it "
                "without them."
            )
        if shards or not find_tables(data.path):
            return False
    if find_spec("datasets") is None:
        raise DataError(
            f"{data.name} is read by datasets, which is missing. Install what belongs to training, "
            "in the folder of the project: pip install -e '.[train]'."
        )
    return True

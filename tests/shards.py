"""Folders of shards for tests."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from kosmosg.data.options import ImageFormat
from kosmosg.data.schema import Sample
from kosmosg.data.shards import shard_name, write_shard


def write_shards(
    samples: Iterable[Sample],
    directory: Path,
    *,
    per_shard: int = 1000,
    image_format: ImageFormat = "PNG",
) -> tuple[Path, ...]:
    """Write samples as a folder of shards, and return these."""
    remaining = iter(samples)
    paths = []
    while some := list(islice(remaining, per_shard)):
        paths.append(directory / shard_name(len(paths)))
        first_key = per_shard * (len(paths) - 1)
        write_shard(some, paths[-1], first_key=first_key, image_format=image_format)
    return tuple(paths)

"""Samples in the authors' layout: tab-separated lines with images in base64.

As the authors' readers take it, a data set is a folder with an index ``json/train.json``, a list
of groups ``{"source": [files], "weight": number}`` (or ``"count"``). The files lie in ``data/``,
those of captions in the folder itself:

    captions         unused, caption, image, width, height
    instructpix2pix  caption, instruction, then pairs of images (before, after)
    openimages       caption, comma-separated tags, image, then for each tag (crop, masked crop)

A shard is looked through once per epoch to find its lines. At the full size that is most of the
reading, on every process; a file of line offsets (``x.lineidx`` next to ``x.tsv``, see
``write_line_index``) spares it.
"""

import base64
import binascii
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kosmosg.data.entities import match_tags
from kosmosg.data.options import TsvSet
from kosmosg.data.scans import scan_once
from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    EditSample,
    Entity,
    Sample,
    Scan,
    ShardGroup,
    StoredPicture,
    compose,
    open_picture,
    read_range,
)
from kosmosg.data.skipping import BadSample
from kosmosg.errors import DataError

logger = logging.getLogger(__name__)

Parser = Callable[[list[bytes], np.random.Generator], Sample]
INDEX_FILE = Path("json") / "train.json"
LINE_INDEX_SUFFIX = ".lineidx"


@dataclass(frozen=True, kw_only=True)
class TsvShard:
    """One file of lines; ``parse`` knows the columns."""

    path: Path
    parse: Parser

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    def scan(self) -> Scan:
        """Find the lines; an entry is an offset and a length in bytes."""
        return scan_once(_scan, self.path, self.path.with_suffix(LINE_INDEX_SUFFIX))

    def read(self, entry: tuple[int, int], generator: np.random.Generator) -> Sample:
        """Read one line."""
        try:
            with self.path.open("rb") as file:
                line = read_range(file, *entry)
        except OSError as error:
            raise BadSample("unreadable", str(error)) from error
        return self.parse(line.rstrip(b"\r\n").split(b"\t"), generator)


def open_tsv(
    directory: str | Path, kind: TsvSet, rules: CaptionRules | None = None
) -> tuple[ShardGroup, ...]:
    """Open a data set by its index. A file that it names and that is not there is skipped later.

    Args:
        directory: Folder of the data set.
        kind: Which of the three layouts it has.
        rules: What to read of captions.

    Raises:
        DataError: If the index is missing or not as described above.
    """
    directory = Path(directory)
    rules = rules or CaptionRules()
    parsers: dict[TsvSet, Parser] = {
        "captions": partial(parse_caption, rules=rules),
        "instructpix2pix": parse_edit,
        "openimages": parse_compositional,
    }
    folder = directory if kind == "captions" else directory / "data"
    return tuple(
        ShardGroup(
            shards=tuple(TsvShard(path=folder / name, parse=parsers[kind]) for name in names),
            weight=weight,
        )
        for names, weight in _read_index(directory / INDEX_FILE)
    )


def parse_caption(
    columns: list[bytes], generator: np.random.Generator, *, rules: CaptionRules
) -> Sample:
    """Read a line of a caption set; there is nothing to choose in it."""
    _check_columns(columns, len(columns) == 5, "5")
    caption = _text(columns[1])
    # Nine digits are enough for any picture, and int() refuses thousands of them.
    if not all(column.isdigit() and len(column) < 10 for column in columns[3:5]):
        raise BadSample("size-not-a-number", f"{columns[3]!r:.40} × {columns[4]!r:.40}")
    if rules.text_only:
        return CaptionSample(caption=caption, image=None)
    rules.check_size(int(columns[3]), int(columns[4]))
    return CaptionSample(caption=caption, image=_image(columns[2], "image"))


def parse_edit(columns: list[bytes], generator: np.random.Generator) -> Sample:
    """Read a line of InstructPix2Pix and choose one of its pairs of images."""
    pairs, odd = divmod(len(columns) - 2, 2)
    _check_columns(columns, pairs >= 1 and not odd, "2 and one or more pairs")
    place = 2 + 2 * int(generator.integers(pairs))
    return EditSample(
        caption=_text(columns[0]),
        instruction=_text(columns[1]),
        before=_image(columns[place], "before"),
        after=_image(columns[place + 1], "after"),
    )


def parse_compositional(columns: list[bytes], generator: np.random.Generator) -> Sample:
    """Read a line of OpenImages; only images of tags that the caption names are looked at."""
    _check_columns(columns, len(columns) >= 3, "3 and a pair for each tag")
    caption, listed = _text(columns[0]), _text(columns[1])
    tags = listed.split(",") if listed.strip() else []
    wanted = 3 + 2 * len(tags)
    _check_columns(columns, len(columns) == wanted, f"{wanted} for {len(tags)} tags")
    entities = tuple(
        Entity(
            span=(match.start, match.end),
            crop=_picture(columns[3 + 2 * match.tag], "crop"),
            masked_crop=_picture(columns[4 + 2 * match.tag], "masked crop"),
        )
        for match in match_tags(caption, tags)
    )
    return compose(caption, entities, _image(columns[2], "image"))


def write_line_index(path: Path) -> Path:
    """Write where the lines of a TSV file begin, one number a line."""
    index = path.with_suffix(LINE_INDEX_SUFFIX)
    unfinished = index.with_name(index.name + ".part")
    unfinished.write_text("".join(f"{offset}\n" for offset in _find_lines(path)))
    unfinished.replace(index)
    return index


def _scan(path: Path) -> Scan:
    try:
        starts = _read_line_index(path) or _find_lines(path)
        borders = [*starts, path.stat().st_size]
    except OSError as error:
        return Scan(entries=(), damage=(BadSample("broken-shard", str(error)),))
    if not starts:
        return Scan(entries=(), damage=(BadSample("broken-shard", "the file is empty"),))
    return Scan(entries=[(start, end - start) for start, end in pairwise(borders)])


def _find_lines(path: Path) -> list[int]:
    offsets = []
    offset = 0
    with path.open("rb") as file:
        for line in file:
            offsets.append(offset)
            offset += len(line)
    return offsets


def _read_line_index(path: Path) -> list[int] | None:
    """Read the offsets next to a file, or nothing if there are none that fit it."""
    index = path.with_suffix(LINE_INDEX_SUFFIX)
    if not index.is_file():
        return None
    try:
        offsets = [int(line) for line in index.read_text().split()]
        if offsets[0] == 0 and all(start < end for start, end in pairwise(offsets)):
            with path.open("rb") as file:
                file.seek(offsets[-1])
                rest = len(file.readline())
            if rest and offsets[-1] + rest == path.stat().st_size:
                return offsets
    except (ValueError, IndexError):
        pass
    logger.warning("%s does not fit %s and is not used; write it anew", index, path.name)
    return None


def _read_index(path: Path) -> list[tuple[list[str], float]]:
    try:
        groups = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"The data set has no index: {path} ({error.strerror}).") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}).") from error
    if not isinstance(groups, list) or not groups:
        raise DataError(f"{path}: wanted a list of groups, found {groups!r:.80}.")
    return [_read_group(group, path) for group in groups]


def _read_group(group: Any, path: Path) -> tuple[list[str], float]:
    match group:
        case {"source": [*names], "weight": int(weight) | float(weight)}:
            pass
        case {"source": [*names], "count": int(weight) | float(weight)}:
            pass
        case _:
            names, weight = [], 0.0
    if not names or not all(isinstance(name, str) for name in names) or not weight >= 0:
        raise DataError(
            f"{path}: wanted groups such as {{'source': ['0000.tsv'], 'weight': 1}}, found "
            f"{group!r:.120}."
        )
    return names, float(weight)


def _check_columns(columns: list[bytes], right: bool, wanted: str) -> None:
    if not right:
        raise BadSample("columns", f"{len(columns)} columns, wanted {wanted}")


def _text(column: bytes) -> str:
    try:
        return column.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSample("encoding", str(error)) from error


def _image(column: bytes, name: str) -> Image.Image:
    return open_picture(_picture(column, name))


def _picture(column: bytes, name: str) -> StoredPicture:
    try:
        return StoredPicture(data=base64.b64decode(column, validate=True), name=name)
    except binascii.Error as error:
        raise BadSample("base64", f"{name}: {error}") from error

"""Samples in WebDataset shards: tar files in which the files of one sample share a key.

A folder of ``.tar`` files, each holding samples one after the other. ``KEY.json`` says what a
sample is, the other files are its pictures (``jpg``, ``jpeg``, ``png`` or ``webp``):

    kind           KEY.json                                               pictures
    caption        {"kind": "caption", "caption": "…"}                    KEY.image.png (not read
                                                                          for text alone)
    edit           {"kind": "edit", "caption": "…", "instruction": "…"}   KEY.before.png
                                                                          KEY.after.png
    compositional  {"kind": "compositional", "caption": "A cat on …",     KEY.target.png
                    "entities": [{"start": 2, "end": 5}, …]}              KEY.crop0.png, …
                                                                          KEY.masked0.png, …
    interleaved    {"kind": "interleaved",                                KEY.image0.png
                    "parts": ["text", {"image": 0}, "text", …]}           KEY.image1.png, …

Kinds may be mixed within a shard. Spans count characters, go from left to right and do not
overlap. Archives are written (``shard_writer``), and files grouped into samples, by the
``webdataset`` library. Its own reader takes a shard as a stream, in which the n-th sample costs
all those before it; here the headers are read once and samples by their place, so that a run
resumes, and several machines share a shard, without reading what they do not need. Hence only
local, uncompressed archives.
"""

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from webdataset.tariterators import group_by_keys

from kosmosg.data.scans import scan_once
from kosmosg.data.schema import (
    CaptionRules,
    CaptionSample,
    EditSample,
    Entity,
    InterleavedDocument,
    Sample,
    Scan,
    StoredPicture,
    compose,
    open_picture,
    read_range,
)
from kosmosg.data.skipping import BadSample
from kosmosg.errors import DataError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
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
        return scan_once(_scan, self.path)

    def read(self, entry: Mapping[str, tuple[int, int]], generator: np.random.Generator) -> Sample:
        """Read one sample; there is nothing to choose in it."""
        try:
            with self.path.open("rb") as file:
                return _decode(_Parts(file, entry), self.rules)
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
            f"There are no shards (*.tar) in {directory}. Name a folder of WebDataset shards."
        )
    rules = rules or CaptionRules()
    return tuple(TarShard(path=path, rules=rules) for path in paths)


def encodable(text: str) -> str:
    """Refuse half a surrogate pair, which JSON can hold and no tokenizer can read.

    Raises:
        BadSample: If there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadSample("encoding", str(error)) from error
    return text


def _scan(path: Path) -> Scan:
    damage: list[BadSample] = []

    def note(error: Exception) -> bool:
        damage.append(BadSample("broken-shard", str(error)))
        return True

    entries = [
        {name: place for name, place in sample.items() if not name.startswith("__")}
        for sample in group_by_keys(_members(path, note), handler=note)
    ]
    return Scan(entries=entries, damage=tuple(damage))


def _members(path: Path, note: Callable[[Exception], bool]) -> Iterator[dict[str, Any]]:
    """Yield the files of an archive as webdataset groups them, with their places as content."""
    try:
        if not path.is_file():  # a pipe would keep its readers waiting
            raise ValueError("it is no regular file")
        with tarfile.open(path, "r:") as archive:
            begins = -1
            for member in archive:
                if member.size < 0 or archive.offset <= begins:
                    raise ValueError(f"a size that cannot be, at byte {member.offset}")
                begins = archive.offset
                # webdataset's own marks, by which it would drop the sample without a word.
                if Path(member.name).name.partition(".")[2].startswith("__"):
                    note(ValueError(f"{member.name!r} is no name for a file of a sample"))
                elif member.isreg():
                    place = (member.offset_data, member.size)
                    yield {"fname": member.name, "data": place, "__url__": path.name}
            end = archive.offset
        # tarfile takes a garbled or missing header for the end of the archive.
        with path.open("rb") as file:
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):
                note(ValueError(f"it is cut off or garbled at byte {end}"))
    except Exception as error:  # noqa: BLE001  tarfile fails on garbled headers in any way
        note(error)


class _Parts:
    """The files of one sample."""

    def __init__(self, file: IO[bytes], places: Mapping[str, tuple[int, int]]):
        self._file = file
        self._places = places

    def metadata(self) -> dict[str, Any]:
        if "json" not in self._places:
            raise BadSample("metadata", f"no json among {sorted(self._places)}")
        try:
            metadata = json.loads(read_range(self._file, *self._places["json"]))
        except (ValueError, RecursionError) as error:
            raise BadSample("metadata", f"the json does not parse ({error})") from error
        if not isinstance(metadata, dict):
            raise BadSample("metadata", f"wanted a json object, not a {type(metadata).__name__}")
        return metadata

    def image(self, part: str) -> Image.Image:
        return open_picture(self.picture(part))

    def picture(self, part: str) -> StoredPicture:
        for extension in IMAGE_EXTENSIONS:
            place = self._places.get(f"{part}.{extension}")
            if place is not None:
                return StoredPicture(data=read_range(self._file, *place), name=part)
        raise BadSample("missing-part", f"no picture {part!r} among {sorted(self._places)}")


def _decode(parts: _Parts, rules: CaptionRules) -> Sample:
    metadata = parts.metadata()
    match metadata.get("kind"):
        case "caption":
            return _decode_caption(metadata, parts, rules)
        case "edit":
            return EditSample(
                caption=_text(metadata, "caption"),
                instruction=_text(metadata, "instruction"),
                before=parts.image("before"),
                after=parts.image("after"),
            )
        case "compositional":
            return _decode_compositional(metadata, parts)
        case "interleaved":
            return _decode_interleaved(metadata, parts)
        case kind:
            raise BadSample("metadata", f"unknown kind {kind!r}")


def _decode_caption(metadata: dict[str, Any], parts: _Parts, rules: CaptionRules) -> Sample:
    caption = _text(metadata, "caption")
    if rules.text_only:
        return CaptionSample(caption=caption, image=None)
    image = parts.image("image")
    rules.check_size(*image.size)
    return CaptionSample(caption=caption, image=image)


def _decode_compositional(metadata: dict[str, Any], parts: _Parts) -> Sample:
    caption = _text(metadata, "caption")
    spans = _spans(metadata, len(caption))
    entities = tuple(
        Entity(
            span=span,
            crop=parts.picture(f"crop{number}"),
            masked_crop=parts.picture(f"masked{number}"),
        )
        for number, span in enumerate(spans)
    )
    return compose(caption, entities, parts.image("target"))


def _decode_interleaved(metadata: dict[str, Any], parts: _Parts) -> Sample:
    listed = metadata.get("parts")
    if not isinstance(listed, list):
        raise BadSample("metadata", f"'parts' must be a list, not {listed!r:.80}")
    decoded: list[str | Image.Image] = []
    for part in listed:
        match part:
            case str():
                decoded.append(encodable(part))
            case {"image": int(number)}:
                decoded.append(parts.image(f"image{number}"))
            case _:
                raise BadSample("metadata", f"a part is a text or an image, not {part!r:.80}")
    return InterleavedDocument(parts=tuple(decoded))


def _text(metadata: dict[str, Any], field_name: str) -> str:
    value = metadata.get(field_name)
    if not isinstance(value, str):
        raise BadSample("metadata", f"{field_name!r} must be a text, not {value!r:.80}")
    return encodable(value)


def _spans(metadata: dict[str, Any], length: int) -> list[tuple[int, int]]:
    listed = metadata.get("entities")
    if not isinstance(listed, list):
        raise BadSample("metadata", f"'entities' must be a list, not {listed!r:.80}")
    spans: list[tuple[int, int]] = []
    position = 0
    for entity in listed:
        match entity:
            case {"start": int(start), "end": int(end)} if position <= start < end <= length:
                spans.append((start, end))
                position = end
            case _:
                raise BadSample("metadata", f"not a span of the caption: {entity!r:.80}")
    return spans

"""Samples in WebDataset shards: tar files in which the files of one sample share a key.

A folder of ``.tar`` files. ``KEY.json`` says what a sample is, the other files are its images, in
any format that is read, such as ``jpg``, ``png`` or ``webp``:

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
overlap. Archives are written (``shard_writer``) by the ``webdataset`` library. Its reader takes a
shard as a stream, in which the n-th sample costs all those before it; here the headers are read
once and samples by their place, so that a run resumes, and several machines share a shard, without
reading what they do not need. Hence only local, uncompressed archives; but the files of a sample
need not be neighbours, and a key may have dots.
"""

import json
import tarfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from webdataset.tariterators import base_plus_ext

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
from kosmosg.prompts.images import UNREAD_SUFFIXES, image_suffixes

SplitName = Callable[[str], tuple[str | None, str | None]]
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
        return scan_once(scan_archive, self.path)

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


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image, whether it can be read or not."""
    suffix = f".{name.rpartition('.')[2].lower()}"
    return suffix in image_suffixes() or suffix in UNREAD_SUFFIXES


def find_image(names: Iterable[str], part: str = "") -> str:
    """Find the image of a part among the names of a sample's files, such as ``image.png``.

    Args:
        names: Without the key.
        part: Which; nothing where files are called by their suffix alone.

    Raises:
        BadSample: If there is none, or none in a format that is read.
    """
    names = sorted(names)
    images = [name for name in names if name.rpartition(".")[0] == part and is_image(name)]
    for name in images:
        if f".{name.rpartition('.')[2]}" in image_suffixes():
            return name
    if images:
        raise BadSample("image-format", f"{images[0]} is not read; save it as JPEG or PNG")
    raise BadSample("missing-part", f"no image{part and f' {part!r}'} among {names}")


def scan_archive(path: Path, split: SplitName = base_plus_ext) -> Scan:
    """Find the samples of an archive, in the order of their first files.

    ``KEY.json`` says what is a key, so that keys may have dots. Files of one key belong together
    wherever they stand; where the same one comes again behind those of another key, another sample
    begins, as in archives that were put together. Hidden files are none of a sample.

    Args:
        path: The archive.
        split: Divides the name of a file without such a JSON into a key and the rest.
    """
    damage: list[BadSample] = []
    entries: list[dict[str, tuple[int, int]]] = []
    latest: dict[str, dict[str, tuple[int, int]]] = {}
    before = None

    def note(problem: str) -> None:
        damage.append(BadSample("broken-shard", problem))

    files = list(_members(path, note))
    keys = {name[: -len(_JSON)] for name, _ in files if name.lower().endswith(_JSON)}
    for name, place in files:
        key, kind = _find_owner(name, keys) or split(name)
        if key is None or kind is None:
            continue  # a name without a dot
        kind = kind.lower()
        if key not in latest or (kind in latest[key] and key != before):
            latest[key] = {}
            entries.append(latest[key])
        if kind in latest[key]:
            note(f"{name}: a duplicate, of which the first one is taken")
        latest[key].setdefault(kind, place)
        before = key
    return Scan(entries=entries, damage=tuple(damage))


def _find_owner(name: str, keys: Container[str]) -> tuple[str, str] | None:
    """Find the longest key that a name begins with, and return it and the rest."""
    key = name
    while "." in key.rpartition("/")[2]:
        key = key.rpartition(".")[0]
        if key in keys:
            return key, name[len(key) + 1 :]
    return None


def _members(path: Path, note: Callable[[str], None]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the names of an archive's files, and where each begins and how long it is."""
    try:
        if not path.is_file():  # a pipe would keep its readers waiting
            raise ValueError("it is no regular file")
        with tarfile.open(path, "r:") as archive:
            begins = -1
            for member in archive:
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
        place = self._places[find_image(self._places, part)]
        return StoredPicture(data=read_range(self._file, *place), name=part)


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

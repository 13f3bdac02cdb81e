"""What img2dataset writes, to samples of captions.

Its tar files, or its folders of files, hold for each sample a picture (``jpg``, ``png``, ``webp``),
its caption (``txt``), and a JSON with the caption once more, its size and its address. The
pictures go into the shards as they are; those that stages 1 and 3 would pass over do not (facts
sheet, section 13).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kosmosg.curation.images import find_picture, noted_source
from kosmosg.curation.records import Draft, Outcome, Rejected, Source, one_by_one
from kosmosg.curation.sources import (
    MAX_TEXT,
    ByteRange,
    Place,
    bundle,
    open_tars,
    read_file,
    walk,
)
from kosmosg.data.preprocessing import CaptionLimits, check_caption
from kosmosg.data.schema import CaptionRules, CaptionSample, StoredPicture, open_picture
from kosmosg.data.shard_writer import encode_sample
from kosmosg.data.shards import IMAGE_EXTENSIONS, encodable
from kosmosg.data.skipping import BadSample
from kosmosg.errors import CurationError
from kosmosg.prompts.tokenizer import KosmosGTokenizer

SIZE = ("width", "height")


def open_downloads(path: Path, per_shard: int) -> Source:
    """Open a folder that img2dataset has written.

    Raises:
        CurationError: If there is no sample in it.
    """
    if not path.is_dir():
        raise CurationError(f"{path} is no folder. Name the one that img2dataset wrote to.")
    if any(path.glob("*.tar")):
        return open_tars(path, per_shard)
    files = walk(path, (f".{name}" for name in IMAGE_EXTENSIONS))
    stems = list(dict.fromkeys(name.rpartition(".")[0] for name in files))
    return bundle("stems", path, stems, _find_files, per_shard)


def _find_files(root: Path, stem: str) -> dict[str, Place]:
    """Find the files of a sample, which share the path up to the suffix."""
    return {
        suffix: ByteRange(file)
        for suffix in (*IMAGE_EXTENSIONS, "txt", "json")
        for written in (suffix.upper(), suffix)
        if (file := root / f"{stem}.{written}").is_file()
    }


@dataclass(frozen=True, kw_only=True)
class ReadDownloads:
    """Reads captioned pictures, and keeps those that training takes.

    Attributes:
        tokenizer: Counts what captions are long.
        rules: Smallest picture.
        limits: Longest caption.
    """

    tokenizer: KosmosGTokenizer
    rules: CaptionRules = field(default_factory=CaptionRules)
    limits: CaptionLimits = field(default_factory=CaptionLimits)
    name: str = field(default="read", init=False)
    batch: int = field(default=64, init=False)

    def __call__(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Finish some drafts."""
        return one_by_one(self._read, drafts)

    def _read(self, draft: Draft) -> Draft:
        place = find_picture(draft.places)
        extension = next(name for name, each in draft.places.items() if each == place)
        metadata = self._metadata(draft)
        caption = self._caption(draft, metadata)
        self.rules.check_size(*read_size(metadata))
        check_caption(caption, self.tokenizer, self.limits)
        data = read_file(place)
        # Decoded to see that it is one, and how large it is in truth.
        self.rules.check_size(*open_picture(StoredPicture(data=data, name="picture")).size)
        source = noted_source(metadata, draft.key)
        files = encode_sample(CaptionSample(caption=caption, image=None), source=source)
        return replace(draft, caption=caption, files={**files, f"image.{extension}": data})

    def _metadata(self, draft: Draft) -> Mapping[str, Any]:
        if "json" not in draft.places:
            raise BadSample("metadata", f"no json among {sorted(draft.places)}")
        try:
            metadata = json.loads(read_file(draft.places["json"], MAX_TEXT))
        except (ValueError, RecursionError) as error:
            raise BadSample("metadata", f"the json does not parse ({error})") from error
        if not isinstance(metadata, dict):
            raise BadSample("metadata", f"wanted a json object, not a {type(metadata).__name__}")
        return metadata

    def _caption(self, draft: Draft, metadata: Mapping[str, Any]) -> str:
        if "txt" in draft.places:
            try:
                caption = read_file(draft.places["txt"], MAX_TEXT).decode("utf-8")
            except UnicodeDecodeError as error:
                raise BadSample("encoding", str(error)) from error
        else:
            caption = metadata.get("caption")
        if not isinstance(caption, str) or not caption.strip():
            raise Rejected("no-caption", f"{caption!r:.80}")
        return encodable(" ".join(caption.split()))


def read_size(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """Read width and height, in pixels, as numbers or as text.

    Raises:
        BadSample: If one is no whole number.
    """
    texts = [str(metadata.get(name)) for name in SIZE]
    # Nine digits are enough for any picture, and int() refuses thousands of them.
    if not all(text.isdecimal() and len(text) < 10 for text in texts):
        raise BadSample("size-not-a-number", " × ".join(texts)[:80])
    width, height = map(int, texts)
    return width, height

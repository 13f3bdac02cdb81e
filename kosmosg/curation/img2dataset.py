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

from kosmosg.curation.images import noted_source
from kosmosg.curation.records import Draft, Outcome, Rejected, Source, one_by_one
from kosmosg.curation.sources import MAX_TEXT, open_images, read_file
from kosmosg.data.preprocessing import CaptionLimits, check_caption
from kosmosg.data.schema import CaptionRules, CaptionSample, StoredPicture, open_picture
from kosmosg.data.shard_writer import encode_sample
from kosmosg.data.shards import encodable, find_image
from kosmosg.data.skipping import BadSample
from kosmosg.errors import CurationError
from kosmosg.prompts.tokenizer import KosmosGTokenizer

SIZE = ("width", "height")
UNKNOWN = (None, "", "None", "null", "nan", "NaN")  # as tables and JSON write it


def open_downloads(path: Path, per_shard: int) -> Source:
    """Open a folder that img2dataset has written.

    Raises:
        CurationError: If there is no sample in it.
    """
    if not path.is_dir():
        raise CurationError(f"{path} is no folder. Name the one that img2dataset wrote to.")
    return open_images(path, per_shard, one_per_name=True)


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
        extension = find_image(draft.places)
        metadata = self._metadata(draft)
        caption = self._caption(draft, metadata)
        if (size := read_size(metadata)) is not None:
            self.rules.check_size(*size)
        check_caption(caption, self.tokenizer, self.limits)
        data = read_file(draft.places[extension])
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


def read_size(metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    """Read width and height, in pixels, as numbers or as text.

    Returns:
        Nothing if one is unknown, as where img2dataset has stored what it got: the image says it.

    Raises:
        BadSample: If one is something else than a whole number.
    """
    noted = [metadata.get(name) for name in SIZE]
    if any(each in UNKNOWN or each != each for each in noted):
        return None
    texts = [str(each) for each in noted]
    # Nine digits are enough for any image, and int() refuses thousands of them.
    if not all(text.isdecimal() and len(text) < 10 for text in texts):
        raise BadSample("size-not-a-number", " × ".join(texts)[:80])
    width, height = map(int, texts)
    return width, height

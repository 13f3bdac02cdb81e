"""What img2dataset writes, to samples of captions.

Its tar files, or its folders of files, hold for each sample an image (``jpg``, ``png``, ``webp``),
its caption (``txt``), and a JSON with the caption once more, its size and its address. The
images go into the shards as they are; those that stages 1 and 3 would pass over do not (facts
sheet, section 13).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kosmosg.curation.images import noted_source
from kosmosg.curation.records import Outcome, Record, Rejected, one_by_one
from kosmosg.curation.sources import MAX_TEXT, read_file
from kosmosg.data.bad_samples import BadSample
from kosmosg.data.encoding import encodable, encode_sample, find_image
from kosmosg.data.preprocessing import CaptionLimits, check_caption
from kosmosg.data.schema import CaptionRules, CaptionSample, EncodedImage, decode_image
from kosmosg.prompts.tokenizer import KosmosGTokenizer

SIZE = ("width", "height")
UNKNOWN = (None, "", "None", "null", "nan", "NaN")  # as tables and JSON write it


@dataclass(frozen=True, kw_only=True)
class ReadCaptioned:
    """Reads captioned images, and keeps those that training takes.

    Attributes:
        tokenizer: Counts what captions are long.
        rules: Smallest image.
        limits: Longest caption.
    """

    tokenizer: KosmosGTokenizer
    rules: CaptionRules = field(default_factory=CaptionRules)
    limits: CaptionLimits = field(default_factory=CaptionLimits)
    name: str = field(default="read", init=False)
    batch: int = field(default=64, init=False)

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """Finish some records."""
        return one_by_one(self._read, records)

    def _read(self, record: Record) -> Record:
        extension = find_image(record.places)
        metadata = self._metadata(record)
        caption = self._caption(record, metadata)
        if (size := read_size(metadata)) is not None:
            self.rules.check_size(*size)
        check_caption(caption, self.tokenizer, self.limits)
        data = read_file(record.places[extension])
        # Decoded to see that it is one, and how large it is in truth.
        self.rules.check_size(*decode_image(EncodedImage(data=data, name="image")).size)
        source = noted_source(metadata, record.key)
        files = encode_sample(CaptionSample(caption=caption, image=None), source=source)
        return replace(record, caption=caption, files={**files, f"image.{extension}": data})

    def _metadata(self, record: Record) -> Mapping[str, Any]:
        if "json" not in record.places:
            raise BadSample("metadata", f"no json among {sorted(record.places)}")
        try:
            metadata = json.loads(read_file(record.places["json"], MAX_TEXT))
        except (ValueError, RecursionError) as error:
            raise BadSample("metadata", f"the json does not parse ({error})") from error
        if not isinstance(metadata, dict):
            raise BadSample("metadata", f"wanted a json object, not a {type(metadata).__name__}")
        return metadata

    def _caption(self, record: Record, metadata: Mapping[str, Any]) -> str:
        if "txt" in record.places:
            try:
                caption = read_file(record.places["txt"], MAX_TEXT).decode("utf-8")
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

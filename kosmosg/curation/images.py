"""From a file to the square image that all later steps look at."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

from PIL import Image

from kosmosg.curation.records import Outcome, Record, Rejected, one_by_one
from kosmosg.curation.sources import MAX_TEXT, printable, read_file
from kosmosg.data.bad_samples import BadSample
from kosmosg.data.encoding import find_image
from kosmosg.data.schema import EncodedImage, decode_image
from kosmosg.prompts.images import central_square

FLAT = 8  # levels of 255: so far a single colour varies once it has been a JPEG
DECODERS = 4  # threads
FAST_PNG = 1  # compression of what lives for some minutes


@dataclass(frozen=True, kw_only=True)
class ReadImages:
    """Reads images and keeps the central square of those that show something.

    Attributes:
        min_side: Smallest square in pixels; the authors' scripts fail below 100.
        max_side: Larger squares are scaled down to it. Nothing later sees more: entities are read
            at 224 pixels, and images generated at 512.
    """

    min_side: int = 100
    max_side: int = 1024
    name: str = field(default="read", init=False)
    batch: int = field(default=64, init=False)

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """Read the image of each record."""
        return one_by_one(self._read, records)

    def _read(self, record: Record) -> Record:
        data = read_file(record.places[find_image(record.places)])
        image = central_square(decode_image(EncodedImage(data=data, name="image")))
        if image.width < self.min_side:
            detail = f"{image.width} pixels, wanted at least {self.min_side}"
            raise Rejected("too-small", detail)
        if is_flat(image):
            raise Rejected("one-colour", f"about {image.getpixel((0, 0))}")
        if image.width > self.max_side:
            image = image.resize((self.max_side, self.max_side), Image.Resampling.LANCZOS)
        return replace(record, image=store(image), source=self._find_source(record))

    def _find_source(self, record: Record) -> str:
        """Return the address that a downloader has noted beside an image, or its key."""
        if "json" not in record.places:
            return record.key
        try:
            noted = json.loads(read_file(record.places["json"], MAX_TEXT))
        except (Rejected, BadSample, ValueError, RecursionError):
            return record.key
        return noted_source(noted, record.key)


def noted_source(noted: Any, key: str) -> str:
    """Return the address that a downloader has noted, or a key where there is none to write."""
    match noted:
        case {"url": str(url)} if url.strip() and printable(url) == url:
            return url
    return key


def is_flat(image: Image.Image) -> bool:
    """Tell whether an image shows nothing but one colour."""
    extrema: Any = image.getextrema()  # of each channel
    return all(high - low <= FLAT for low, high in extrema)


def store(image: Image.Image) -> EncodedImage:
    """Encode an image for the way to the next step, without loss."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=FAST_PNG)
    return EncodedImage(data=buffer.getvalue(), name="image")


def image_of(record: Record) -> Image.Image:
    """Decode the image of a record that has been read."""
    assert record.image is not None, record.key
    return decode_image(record.image)


def images_of(records: Sequence[Record]) -> list[Image.Image]:
    """Decode the images of some records side by side, for a GPU that waits for them."""
    with ThreadPoolExecutor(DECODERS) as pool:
        return list(pool.map(image_of, records))

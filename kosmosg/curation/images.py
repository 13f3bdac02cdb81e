"""From a file to the square picture that all later steps look at."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

from PIL import Image

from kosmosg.curation.records import Draft, Outcome, Rejected, one_by_one
from kosmosg.curation.sources import MAX_TEXT, printable, read_file
from kosmosg.data.schema import StoredPicture, open_picture
from kosmosg.data.shards import find_image
from kosmosg.data.skipping import BadSample
from kosmosg.prompts.images import central_square

FLAT = 8  # levels of 255: so far a single colour varies once it has been a JPEG
DECODERS = 4  # threads
FAST_PNG = 1  # compression of what lives for some minutes


@dataclass(frozen=True, kw_only=True)
class ReadPictures:
    """Reads pictures and keeps the central square of those that show something.

    Attributes:
        min_side: Smallest square in pixels; the authors' scripts fail below 100.
        max_side: Larger squares are scaled down to it. Nothing later sees more: entities are read
            at 224 pixels, and pictures drawn at 512.
    """

    min_side: int = 100
    max_side: int = 1024
    name: str = field(default="read", init=False)
    batch: int = field(default=64, init=False)

    def __call__(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Read the picture of each draft."""
        return one_by_one(self._read, drafts)

    def _read(self, draft: Draft) -> Draft:
        data = read_file(draft.places[find_image(draft.places)])
        image = central_square(open_picture(StoredPicture(data=data, name="picture")))
        if image.width < self.min_side:
            detail = f"{image.width} pixels, wanted at least {self.min_side}"
            raise Rejected("too-small", detail)
        if is_flat(image):
            raise Rejected("one-colour", f"about {image.getpixel((0, 0))}")
        if image.width > self.max_side:
            image = image.resize((self.max_side, self.max_side), Image.Resampling.LANCZOS)
        return replace(draft, picture=store(image), source=self._find_source(draft))

    def _find_source(self, draft: Draft) -> str:
        """Return the address that a downloader has noted beside a picture, or its key."""
        if "json" not in draft.places:
            return draft.key
        try:
            noted = json.loads(read_file(draft.places["json"], MAX_TEXT))
        except (Rejected, BadSample, ValueError, RecursionError):
            return draft.key
        return noted_source(noted, draft.key)


def noted_source(noted: Any, key: str) -> str:
    """Return the address that a downloader has noted, or a key where there is none to write."""
    match noted:
        case {"url": str(url)} if url.strip() and printable(url) == url:
            return url
    return key


def is_flat(image: Image.Image) -> bool:
    """Tell whether a picture shows nothing but one colour."""
    extrema: Any = image.getextrema()  # of each channel
    return all(high - low <= FLAT for low, high in extrema)


def store(image: Image.Image) -> StoredPicture:
    """Encode a picture for the way to the next step, without loss."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=FAST_PNG)
    return StoredPicture(data=buffer.getvalue(), name="picture")


def opened(draft: Draft) -> Image.Image:
    """Decode the picture of a draft that has been read."""
    assert draft.picture is not None, draft.key
    return open_picture(draft.picture)


def all_opened(drafts: Sequence[Draft]) -> list[Image.Image]:
    """Decode the pictures of some drafts side by side, for a GPU that waits for them."""
    with ThreadPoolExecutor(DECODERS) as pool:
        return list(pool.map(opened, drafts))

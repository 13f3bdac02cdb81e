"""What training data consists of, and what a reader of it looks like.

Four kinds of samples (paper, sections 2.1 and 2.3). Images are upright RGB pictures of any size;
texts are as they stand in the data. A reader is a ``Shard``: one file
whose samples can be read in any order, so that a run can be resumed and shared out exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from kosmosg.data.skipping import BadSample
from kosmosg.errors import ImageError
from kosmosg.prompts.images import open_image


@dataclass(frozen=True, kw_only=True)
class CaptionSample:
    """A caption and its picture; no picture where only texts are read (stage 2)."""

    caption: str
    image: Image.Image | None


@dataclass(frozen=True, kw_only=True)
class EditSample:
    """An InstructPix2Pix triple: what an instruction makes of a picture.

    ``caption`` describes the picture before the edit.
    """

    caption: str
    instruction: str
    before: Image.Image
    after: Image.Image


@dataclass(frozen=True, kw_only=True)
class StoredPicture:
    """A picture as a file holds it, for ``open_picture``.

    Attributes:
        data: The file's content.
        name: What to call it in messages.
    """

    data: bytes
    name: str


@dataclass(frozen=True, kw_only=True)
class Entity:
    """One thing that a caption names and its picture shows.

    Only one of its two pictures is shown, so readers leave both undecoded: that is most of the
    work, and damage is found where it matters.

    Attributes:
        span: Start and end of its words in the caption.
        crop: Cut out with what stands around it.
        masked_crop: The same with everything else white.
    """

    span: tuple[int, int]
    crop: Image.Image | StoredPicture
    masked_crop: Image.Image | StoredPicture


@dataclass(frozen=True, kw_only=True)
class CompositionalSample:
    """A caption, the entities in it from left to right, and the picture to be drawn."""

    caption: str
    entities: tuple[Entity, ...]
    target: Image.Image


@dataclass(frozen=True, kw_only=True)
class InterleavedDocument:
    """Texts and pictures in reading order; a document of text alone has no picture."""

    parts: tuple[str | Image.Image, ...]


Sample = CaptionSample | EditSample | CompositionalSample | InterleavedDocument


@dataclass(frozen=True, kw_only=True)
class CaptionRules:
    """What is read of captions, and which are left out.

    Attributes:
        text_only: Leave the pictures closed, and their sizes out of account (stage 2).
        min_side: Shortest side that a picture may have.
    """

    text_only: bool = False
    min_side: int = 384

    def check_size(self, width: int, height: int) -> None:
        """Refuse a picture that is too small.

        Raises:
            BadSample: If one side is below the limit, unless only texts are read.
        """
        if not self.text_only and min(width, height) < self.min_side:
            detail = f"{width} × {height} pixels, wanted at least {self.min_side}"
            raise BadSample("too-small", detail)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a look through a shard found.

    Attributes:
        entries: One per sample, in file order; only the shard itself knows what they hold.
        damage: What is wrong with the shard as a whole. Entries before the damage are kept.
    """

    entries: Sequence[Any]
    damage: tuple[BadSample, ...] = ()


class Shard(Protocol):
    """One file of samples that can be read in any order."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    def scan(self) -> Scan:
        """Find the samples without decoding them; damage is reported, not raised."""
        ...

    def read(self, entry: Any, generator: np.random.Generator) -> Sample:
        """Read one sample.

        Args:
            entry: One of ``scan``'s entries.
            generator: Chooses where a stored sample leaves a choice.

        Raises:
            BadSample: If it cannot be used.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ShardGroup:
    """Shards that are drawn from together, and how often compared with other groups."""

    shards: tuple[Shard, ...]
    weight: float


def compose(caption: str, entities: tuple[Entity, ...], target: Image.Image) -> Sample:
    """Make a compositional sample, or a caption if there is no entity in it."""
    if not entities:
        return CaptionSample(caption=caption, image=target)
    return CompositionalSample(caption=caption, entities=entities, target=target)


def open_picture(picture: Image.Image | StoredPicture) -> Image.Image:
    """Decode a picture unless it is decoded.

    Raises:
        BadSample: If it is damaged.
    """
    if isinstance(picture, Image.Image):
        return picture
    try:
        return open_image(picture.data, picture.name)
    except ImageError as error:
        raise BadSample("image", str(error)) from error


def read_range(file: Any, offset: int, size: int) -> bytes:
    """Read a stretch of an open file.

    Raises:
        BadSample: If the file ends before it.
    """
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise BadSample("unreadable", f"the file ends {size - len(data)} bytes too early")
    return data

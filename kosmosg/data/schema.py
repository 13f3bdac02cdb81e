"""What training data consists of, and what a reader of it looks like.

Four kinds of samples (paper, sections 2.1 and 2.3), and that of public subject-driven sets. Images
are upright RGB images of any size; texts are as they stand in the data. A reader is a ``Shard``:
one file whose samples can be read in any order, so that a run can be resumed and shared exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from kosmosg.data.bad_samples import BadSample
from kosmosg.errors import ImageError
from kosmosg.prompts.images import open_image


@dataclass(frozen=True, kw_only=True)
class CaptionSample:
    """A caption and its image; no image where only texts are read (stage 2)."""

    caption: str
    image: Image.Image | None


@dataclass(frozen=True, kw_only=True)
class EditSample:
    """An InstructPix2Pix triple: what an instruction makes of an image.

    ``caption`` describes the image before the edit.
    """

    caption: str
    instruction: str
    before: Image.Image
    after: Image.Image


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """An image as a file holds it, for ``decode_image``.

    Attributes:
        data: The file's content.
        name: What to call it in messages.
    """

    data: bytes
    name: str


@dataclass(frozen=True, kw_only=True)
class EntityImages:
    """One thing that a caption names and its image shows.

    Only one of its two images is shown, so readers leave both undecoded: that is most of the
    work, and damage is found where it matters.

    Attributes:
        span: Start and end of its words in the caption.
        crop: Cut out with what stands around it.
        masked_crop: The same with everything else white.
    """

    span: tuple[int, int]
    crop: Image.Image | EncodedImage
    masked_crop: Image.Image | EncodedImage


@dataclass(frozen=True, kw_only=True)
class CompositionalSample:
    """A caption, the entities in it from left to right, and the image to be generated."""

    caption: str
    entities: tuple[EntityImages, ...]
    target: Image.Image


@dataclass(frozen=True, kw_only=True)
class SubjectSample:
    """Images of subjects, words on what is to be made of them, and what was made.

    The words name no place for each image, as entities of a caption do: the images come first.
    """

    prompt: str
    images: tuple[Image.Image, ...]
    target: Image.Image


@dataclass(frozen=True, kw_only=True)
class InterleavedDocument:
    """Texts and images in reading order; a document of text alone has no image."""

    parts: tuple[str | Image.Image, ...]


Sample = CaptionSample | EditSample | CompositionalSample | SubjectSample | InterleavedDocument


@dataclass(frozen=True, kw_only=True)
class CaptionRules:
    """What is read of captions, and which are left out.

    Attributes:
        text_only: Leave the images closed, and their sizes out of account (stage 2).
        min_side: Shortest side that an image may have.
    """

    text_only: bool = False
    min_side: int = 384

    def check_size(self, width: int, height: int) -> None:
        """Refuse an image that is too small.

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

    def expect(self) -> None:
        """Begin to fetch it, if that takes time: it is the next to be found."""
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


def compose(caption: str, entities: tuple[EntityImages, ...], target: Image.Image) -> Sample:
    """Make a compositional sample, or a caption if there is no entity in it."""
    if not entities:
        return CaptionSample(caption=caption, image=target)
    return CompositionalSample(caption=caption, entities=entities, target=target)


def decode_image(image: Image.Image | EncodedImage) -> Image.Image:
    """Decode an image unless it is decoded.

    Raises:
        BadSample: If it is damaged.
    """
    if isinstance(image, Image.Image):
        return image
    try:
        return open_image(image.data, image.name)
    except ImageError as error:
        raise BadSample("image", str(error)) from error

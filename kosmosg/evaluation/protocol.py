"""What an evaluation asks for: images, one by one, and the conventions that they follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kosmosg.evaluation.options import PROTOCOL_NAMES

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class ImageJob:
    """One image to generate.

    Attributes:
        name: Its file below the folder of images, without the suffix.
        prompt: Text with markers, as the model gets it.
        images: Files of the images at the markers.
        seed: Of its noise.
        text: What it should show, in words alone.
        subject: Whom it should show, where several images do.
        kind: What the prompt asks for, where there are several kinds.
    """

    name: str
    prompt: str
    images: tuple[Path, ...]
    seed: int
    text: str
    subject: str = ""
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """The conventions of an evaluation.

    Attributes:
        name: ``paper`` or ``clean``.
        shared_noise: All batches begin with the same noise, as in the authors' scripts, which set
            the seed anew before each batch.
        old_resizing: Images come to Inception's size without smoothing, as they did when the
            numbers of the paper were made.
    """

    name: str
    shared_noise: bool
    old_resizing: bool

    def seed(self, first: int, *, number: int, place: int) -> int:
        """Choose the seed of an image.

        Args:
            first: The seed of the run.
            number: Which of all images it is, from 0.
            place: Which of its batch in the authors' scripts, from 0.
        """
        return first + (place if self.shared_noise else number)


PROTOCOLS = {
    name: EvaluationProtocol(name=name, shared_noise=old, old_resizing=old)
    for name, old in zip(PROTOCOL_NAMES, (True, False), strict=True)
}


def in_batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut into batches, the last of which may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]

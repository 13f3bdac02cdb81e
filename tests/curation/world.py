"""Images of the world, and models that know all that there is to know about them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from kosmosg.curation.captioning import Captioner
from kosmosg.curation.entity_extraction import Answer, Finder
from kosmosg.curation.options import CompositionalOptions
from kosmosg.curation.pipelines import Models
from kosmosg.curation.segmentation import Logits, Segmenter
from miniature.world import Caption, World, sample_rendering, write_caption
from tests.miniature.art import write_art
from tests.miniature.world.test_world import FIGURE

ZOOM = 2  # 128 pixels are too few for curation
OPTIONS = CompositionalOptions(side=64)


@dataclass(frozen=True, kw_only=True)
class Known:
    """An image and the truth about it.

    Attributes:
        image: Enlarged.
        caption: With the spans of its entities.
        masks: Where these are, from 0 to 1, enlarged as the image is.
    """

    image: Image.Image
    caption: Caption
    masks: tuple[np.ndarray, ...]


@cache
def open_world() -> World:
    with TemporaryDirectory() as folder:
        return World.open(write_art(Path(folder) / "art"))


@cache
def draw(seed: int) -> Known:
    rng = np.random.default_rng(seed)
    rendering = sample_rendering(open_world(), rng)
    return Known(
        image=Image.fromarray(enlarge(rendering.image)),
        caption=write_caption(open_world(), rendering.description, rng),
        masks=tuple(enlarge(mask) / 255.0 for mask in rendering.masks),
    )


def enlarge(values: np.ndarray) -> np.ndarray:
    return values.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for seed in range(count):
        draw(seed).image.save(folder / f"{seed:03d}.png")
    return folder


class Oracle:
    """Recognises an image by its pixels."""

    def __init__(self, count: int):
        self._known = {_digest(draw(seed).image): draw(seed) for seed in range(count)}

    def recognise(self, image: Image.Image) -> Known:
        return self._known[_digest(image)]

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        return [self.recognise(image).caption.text for image in images]

    def segment(
        self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]
    ) -> list[tuple[Logits, ...]]:
        return [
            tuple(_logits(self.recognise(image), text) for text in listed)
            for image, listed in zip(images, texts, strict=True)
        ]


def find_by_rule(captions: Sequence[str]) -> list[Answer]:
    """Stand in for the language model: what is named is an entity."""
    return [Answer(text=", ".join(phrases(caption)), ended=True) for caption in captions]


def phrases(caption: str) -> list[str]:
    return [caption[match.start() : match.end("noun")] for match in FIGURE.finditer(caption)]


def oracles(count: int) -> Models:
    return Models(
        captioner=partial(_captioner, count),
        finder=_finder,
        segmenter=partial(_segmenter, count),
    )


def _captioner(count: int) -> Captioner:
    return Oracle(count).caption


def _finder() -> Finder:
    return find_by_rule


def _segmenter(count: int) -> Segmenter:
    return Oracle(count).segment


def _logits(known: Known, text: str) -> Logits:
    spans = [known.caption.text[span.start : span.end] for span in known.caption.spans]
    likely = known.masks[spans.index(text)].clip(1e-3, 1 - 1e-3)
    return np.log(likely / (1 - likely)).astype(np.float16)


def _digest(image: Image.Image) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()

"""From what a segmenter saw to the two images of each entity (facts sheet, section 13).

The logits are enlarged to the image; where their probability exceeds a threshold, there the
entity is, and a little around it. Its largest connected part is cut out in a square.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image
from scipy import ndimage

from kosmosg.curation.images import image_of
from kosmosg.curation.records import EntityRule, Outcome, Record, set_aside
from kosmosg.curation.segmentation import Logits
from kosmosg.data.encoding import encode_sample
from kosmosg.data.entities import match_tags, square_box
from kosmosg.data.options import ImageFormat
from kosmosg.data.schema import CompositionalSample, EntityImages

DILATION = 100  # the dilating square has this part of the image's side, made odd
LIMIT = 1e4  # logits of certainty
_TOUCHING = np.ones((3, 3), dtype=bool)  # corners touch, too


@dataclass(frozen=True, kw_only=True)
class CutEntities:
    """Cuts the entities out, and puts each sample together.

    Attributes:
        threshold: Probability above which a place belongs to an entity.
        side: Of all images of a sample, in pixels.
        image_format: Of their files.
    """

    threshold: float = 0.3
    side: int = 512
    image_format: ImageFormat = "PNG"
    name: str = field(default="cut", init=False)
    batch: int = field(default=16, init=False)

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """Finish some records."""
        return [self._finish(record) for record in records]

    def _finish(self, record: Record) -> Outcome:
        image = image_of(record)
        masks: dict[str, np.ndarray] = {}
        dropped: list[tuple[str, EntityRule]] = []
        for tag, logits in zip(record.tags, record.logits, strict=True):
            mask = find_mask(logits, image.width, self.threshold)
            if mask is None:
                dropped.append((tag, "empty-mask"))
            else:
                masks[tag] = mask
        tags = tuple(masks)
        spans = match_tags(record.caption, tags)
        # A tag may be a word of another one, as "dog" is of "dog house".
        kept = {span.tag for span in spans}
        for number, tag in enumerate(tags):
            if number not in kept:
                dropped.append((tag, "covered"))
        record = replace(record, dropped=(*record.dropped, *dropped), image=None, logits=())
        if not spans:
            return set_aside(record, "empty-masks", ", ".join(tag for tag, _ in dropped))
        entities = tuple(
            self._cut(image, masks[tags[span.tag]], (span.start, span.end)) for span in spans
        )
        sample = CompositionalSample(
            caption=record.caption, entities=entities, target=self._resize(image)
        )
        files = encode_sample(sample, self.image_format, source=record.source)
        return replace(record, tags=tuple(tags[span.tag] for span in spans), files=files)

    def _cut(
        self, image: Image.Image, mask: Bool[np.ndarray, "side side"], span: tuple[int, int]
    ) -> EntityImages:
        box = square_box(mask)
        white = Image.new("RGB", image.size, "white")
        alone = Image.composite(image, white, Image.fromarray(mask.astype(np.uint8) * 255))
        return EntityImages(
            span=span, crop=self._resize(image, box), masked_crop=self._resize(alone, box)
        )

    def _resize(
        self, image: Image.Image, box: tuple[int, int, int, int] | None = None
    ) -> Image.Image:
        return image.resize((self.side, self.side), Image.Resampling.BICUBIC, box=box)


def find_mask(logits: Logits, side: int, threshold: float) -> Bool[np.ndarray, "side side"] | None:
    """Find the largest connected part of what a segmenter saw.

    Args:
        logits: On any grid.
        side: Of the image, in pixels.
        threshold: Probability above which a place belongs to the entity.

    Returns:
        True where the entity is and half a hundredth of the side around it; nothing if it is
        nowhere.
    """
    # What is no number was not seen.
    values = np.nan_to_num(logits.astype(np.float32), nan=-LIMIT, posinf=LIMIT, neginf=-LIMIT)
    grid = Image.fromarray(values)
    enlarged = np.asarray(grid.resize((side, side), Image.Resampling.BILINEAR))
    # The sigmoid exceeds the threshold where the logit exceeds the threshold's own.
    seen = enlarged > np.log(threshold / (1.0 - threshold))
    if not seen.any():
        return None
    # Odd, so that it grows to all sides alike; the authors' is zero below 100 pixels, and fails.
    grown = ndimage.maximum_filter(seen, size=2 * (side // (2 * DILATION)) + 1)
    parts: Any = ndimage.label(grown, structure=_TOUCHING)
    labels, _ = parts
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # what is not seen
    return labels == sizes.argmax()

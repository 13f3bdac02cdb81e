"""Which words of a caption an entity's image belongs to, where it goes, and what it shows.

Paper, section 2.3, and the authors' reader of OpenImages. The tags of a caption are what a language
model found in it, and each comes with an image of the thing:

    "A man's dog on a beach.", tags dog, man  →  "A man's " <image> " dog " <image> " on a beach."
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from PIL import Image

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.options import EntityOptions
from kosmosg.data.schema import CompositionalSample, decode_image
from kosmosg.prompts.prompt import Prompt

COLOURS = frozenset(
    [
        *("yellow", "blue", "red", "green", "white", "black", "brown", "grey", "gray"),
        *("purple", "pink", "orange", "cyan", "silver", "gold", "golden"),
    ]
)
_WORDS_END = re.compile(r"[ ,.!?;:)\]}]|\Z")


@dataclass(frozen=True, kw_only=True)
class TagSpan:
    """Where a caption names a tag.

    ``caption[start:end]`` holds the tag and what is written together with it (``man's``).
    """

    tag: int
    start: int
    end: int


def match_tags(caption: str, tags: Sequence[str]) -> tuple[TagSpan, ...]:
    """Find the tags that a caption names, from left to right.

    Left out is a tag that is a colour, that is not in the caption as a whole word or phrase, or
    that is also a whole word of another tag: ``dog`` next to ``dog house``, and both of two
    equal tags. Case does not count.
    """
    tags = [tag.strip() for tag in tags]
    candidates = []
    for number, tag in enumerate(tags):
        if not tag or tag.lower() in COLOURS:
            continue
        word = _whole_word(tag)
        found = word.search(caption)
        if found and sum(bool(word.search(other)) for other in tags) == 1:
            candidates.append((found.start(), number, word))
    spans = []
    position = 0
    for _, number, word in sorted(candidates, key=lambda candidate: candidate[:2]):
        # Only in what is left: a tag inside the words of the one before it has no place.
        found = word.search(caption, position)
        if found:
            ending = _WORDS_END.search(caption, found.end())
            assert ending is not None
            position = ending.start()
            spans.append(TagSpan(tag=number, start=found.start(), end=position))
    return tuple(spans)


def interleave(
    caption: str, spans: Sequence[tuple[int, int]], *, drop_text: bool = False
) -> Prompt:
    """Put a place for an image behind each entity of a caption.

    ``"A cat on a mat"`` with a span over ``cat`` becomes ``("A cat ", " on a mat")``, or
    ``("A ", " on a mat")`` with its words dropped.

    Args:
        caption: The whole text.
        spans: Start and end of the entities, from left to right.
        drop_text: Leave the entities' own words out.

    Raises:
        BadSample: If words are dropped where nothing stands before them.
    """
    segments = []
    position = 0
    for start, end in spans:
        segment = caption[position:start] if drop_text else caption[position:end] + " "
        # NOTE(reference): the authors' reader fails on this sample and swallows the failure, so
        # their model never saw a prompt of dropped words that begins with an image.
        if not segment:
            raise BadSample("entity-at-start", f"no text before {caption[start:end]!r} in it")
        segments.append(segment)
        position = end
    return Prompt(segments=(*segments, caption[position:]))


def draw_prompt(
    sample: CompositionalSample, options: EntityOptions, generator: np.random.Generator
) -> tuple[Prompt, tuple[Image.Image, ...]]:
    """Draw how a compositional sample is shown this time.

    Returns:
        The prompt and one image for each entity.

    Raises:
        BadSample: If that prompt cannot be used.
    """
    drop_text = bool(generator.random() < options.drop_text)
    shown = [
        entity.crop if generator.random() > 1.0 - options.keep_background else entity.masked_crop
        for entity in sample.entities
    ]
    spans = [entity.span for entity in sample.entities]
    prompt = interleave(sample.caption, spans, drop_text=drop_text)
    return prompt, tuple(map(decode_image, shown))


def square_box(
    mask: Bool[np.ndarray, "height width"], margin: int = 0
) -> tuple[int, int, int, int]:
    """Find the smallest square with a margin around a mask that lies inside the image.

    The box around the mask grows to a square around its centre and is shifted inside (facts
    sheet, section 13); no square is larger than the shorter side of the image.

    Args:
        mask: True somewhere.
        margin: Pixels to leave free on each side.

    Returns:
        Left, top, right and bottom in pixels; right and bottom are exclusive.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    side = min(max(height, width) + 2 * margin, *mask.shape)
    top = int(np.clip((rows[0] + rows[-1] + 1 - side) // 2, 0, mask.shape[0] - side))
    left = int(np.clip((columns[0] + columns[-1] + 1 - side) // 2, 0, mask.shape[1] - side))
    return left, top, left + int(side), top + int(side)


def _whole_word(tag: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(tag)}(?!\w)", re.IGNORECASE)

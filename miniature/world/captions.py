"""What is said of an image: a small grammar with several phrasings that never contradict.

    a red striped star wearing a hat on the beach
      ╰────── span ──╯
    in the snow, blue fish above orange dotted cat, as a sketch

A body without a word for its texture is plain, an image without a word for its scene was taken
in the studio, and one without a word for its style is an ordinary image; so every caption can
be read back into its description.
"""

from dataclasses import dataclass

import numpy as np

from kosmosg.prompts.prompt import MARKER
from miniature.world.description import Description, Entity, Figure, choose

RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "next to": ("next to", "beside", "and"),
    "above": ("above", "over"),
    "on top of": ("on top of", "standing on"),
}
SCENE_PHRASES: dict[str, tuple[str, ...]] = {
    "studio": ("", "in the studio"),
    "beach": ("on the beach", "at the beach"),
    "forest": ("in the forest", "in the woods"),
    "snow": ("in the snow",),
    "desert": ("in the desert",),
    "night": ("at night", "under the night sky"),
    "sea": ("under the sea", "under water"),
    "city": ("in the city", "on a city street"),
}
STYLE_FRAMES: dict[str, tuple[str, ...]] = {
    "picture": ("{}", "{}", "a picture of {}", "there is {}"),
    "sketch": ("a sketch of {}", "{}, as a sketch"),
    "watercolour": ("a watercolour of {}", "{}, as a watercolour"),
    "neon": ("a neon sign of {}", "{}, as a neon sign"),
}
ACCESSORY_NOUNS = {"hat": "a hat", "crown": "a crown", "glasses": "glasses", "scarf": "a scarf"}

# How often a caption leaves out articles, says "plain", and names the scene first.
BARE, SAYS_PLAIN, SCENE_FIRST = 0.25, 0.3, 0.15


@dataclass(frozen=True, kw_only=True)
class EntitySpan:
    """Where a caption speaks of an entity, in characters.

    Attributes:
        article: Where the article in front of it starts; ``start`` if there is none.
        start: Where its adjectives and noun start.
        end: One behind its noun.
    """

    article: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption and its entities, in the order of the description, which is that of the text."""

    text: str
    spans: tuple[EntitySpan, ...]

    def with_markers(self, words: bool = True) -> str:
        """Put the place of an image behind every entity (paper, section 2.3).

        ``"a red star on the beach"`` becomes ``"a red star <i> on the beach"``.

        Args:
            words: Whether the entities stay. If not, only their images are left:
                ``"<i> on the beach"``.
        """
        parts, position = [], 0
        for span in self.spans:
            if words:
                parts.append(f"{self.text[position : span.end]} {MARKER}")
            else:
                parts.append(f"{self.text[position : span.article]}{MARKER}")
            position = span.end
        return "".join([*parts, self.text[position:]])


def write_caption(description: Description, rng: np.random.Generator) -> Caption:
    """Describe an image in one of the grammar's ways.

    Args:
        description: What it shows.
        rng: Source of the choice.
    """
    frame = choose(STYLE_FRAMES[description.style], rng)
    bare = rng.random() < BARE and frame.startswith("{}")
    text, spans = "", []
    for figure in description.figures:
        if text:
            text += f" {choose(RELATION_PHRASES[description.relation or 'next to'], rng)} "
        phrase = noun_phrase(figure.entity, say_plain=bool(rng.random() < SAYS_PLAIN))
        article = "" if bare else f"{_article(phrase)} "
        start = len(text) + len(article)
        spans.append(EntitySpan(article=len(text), start=start, end=start + len(phrase)))
        text += article + phrase + _wearing(figure, rng)
    scene = choose(SCENE_PHRASES[description.scene], rng)
    if scene and rng.random() < SCENE_FIRST:
        frame = f"{scene}, {frame}"
    elif scene:
        text += f" {scene}"
    shift = frame.index("{}")
    moved = (
        EntitySpan(article=s.article + shift, start=s.start + shift, end=s.end + shift)
        for s in spans
    )
    return Caption(text=frame.format(text), spans=tuple(moved))


def noun_phrase(entity: Entity, say_plain: bool = False) -> str:
    """Name an entity without an article: ``"red striped star"``."""
    texture = "" if entity.texture == "plain" and not say_plain else f"{entity.texture} "
    return f"{entity.colour} {texture}{entity.shape}"


def with_article(phrase: str) -> str:
    """Put ``a`` or ``an`` in front of a phrase."""
    return f"{_article(phrase)} {phrase}"


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _wearing(figure: Figure, rng: np.random.Generator) -> str:
    if figure.accessory == "none":
        return ""
    return f" {choose(('wearing', 'with'), rng)} {ACCESSORY_NOUNS[figure.accessory]}"

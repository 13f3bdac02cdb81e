"""What is said of an image: a small grammar with several phrasings that never contradict.

    a blue flat fox wearing a hat on the beach
      ╰─── span ──╯
    in the snow, purple car on top of flat cat, as pixel art

An entity without a word for its colour has its own, one without a word for its set is of the
first, an image without a word for its scene was taken in the studio, and one without a word for its
style is an ordinary image; so every caption can be read back into its description.
"""

from dataclasses import dataclass

import numpy as np

from miniature.world.description import NATURAL, NOTHING, Description, Entity, Figure, choose
from miniature.world.world import World

RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "next to": ("next to", "beside", "and"),
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
    "plain": ("{}", "{}", "a picture of {}", "there is {}"),
    "pencil": ("a pencil drawing of {}", "{}, as a pencil drawing"),
    "watercolour": ("a watercolour of {}", "{}, as a watercolour"),
    "pixels": ("pixel art of {}", "{}, as pixel art"),
    "neon": ("a neon sign of {}", "{}, as a neon sign"),
}

# How often a caption leaves out articles, names the first set, and names the scene first.
BARE, SAYS_FIRST, SCENE_FIRST = 0.25, 0.25, 0.15


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


def write_caption(world: World, description: Description, rng: np.random.Generator) -> Caption:
    """Describe an image in one of the grammar's ways.

    Args:
        world: Knows which set is the first.
        description: What it shows.
        rng: Source of the choice.
    """
    frame = choose(STYLE_FRAMES[description.style], rng)
    bare = rng.random() < BARE and frame.startswith("{}")
    text, spans = "", []
    for figure in description.figures:
        if text:
            text += f" {choose(RELATION_PHRASES[description.relation or 'next to'], rng)} "
        phrase = noun_phrase(world, figure.entity, say_first=bool(rng.random() < SAYS_FIRST))
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


def noun_phrase(world: World, entity: Entity, say_first: bool = False) -> str:
    """Name an entity without an article: ``"blue flat fox"``."""
    colour = "" if entity.colour == NATURAL else entity.colour
    art = "" if entity.art == world.arts[0] and not say_first else entity.art
    return " ".join(word for word in (colour, art, entity.noun) if word)


def with_article(phrase: str) -> str:
    """Put ``a`` or ``an`` in front of a phrase."""
    return f"{_article(phrase)} {phrase}"


def worn(accessory: str) -> str:
    """Name an accessory with its article, if it is one thing: ``"a hat"``, ``"glasses"``."""
    return accessory if accessory.endswith("s") else with_article(accessory)


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _wearing(figure: Figure, rng: np.random.Generator) -> str:
    if figure.accessory == NOTHING:
        return ""
    return f" {choose(('wearing', 'with'), rng)} {worn(figure.accessory)}"

"""Reading matter of the world for stage 1: plain sentences, and documents with images between.

Nothing that is held out of training is mentioned or shown.
"""

from itertools import chain

import numpy as np
from PIL import Image

from kosmosg.data.schema import InterleavedDocument
from kosmosg.prompts.prompt import MARKER, parse_prompt
from miniature.world.captions import (
    SCENE_PHRASES,
    noun_phrase,
    with_article,
    worn,
    write_caption,
)
from miniature.world.description import NATURAL, SCENES, choose
from miniature.world.edits import sample_edit
from miniature.world.render import Rendering, portrait, render, sample_rendering
from miniature.world.world import World

FACTS = (
    "there are palms, sand and water on the beach",
    "there are pines and grass in the forest",
    "there are white hills and flakes in the snow",
    "there are dunes and a cactus in the desert",
    "there are many small lights in the sky at night",
    "there are bubbles and weeds under the sea",
    "there are towers with windows in the city",
    "there is nothing but a pale wall in the studio",
    "a pencil drawing is made of grey lines",
    "pixel art is made of squares",
    "a watercolour is pale and soft",
    "a neon sign glows in the dark",
)


def sample_sentence(world: World, rng: np.random.Generator) -> str:
    """Draw a sentence about the world: a caption, a fact, or what follows from a description."""
    if (draw := rng.random()) < 0.4:
        return write_caption(world, world.sample_description(rng), rng).text
    if draw < 0.5:
        return choose(FACTS, rng)
    entity = world.sample_entity(rng)
    name = with_article(noun_phrase(world, entity))
    scene = choose(SCENE_PHRASES[choose(SCENES[1:], rng)], rng)
    other = with_article(noun_phrase(world, world.sample_entity(rng)))
    ways = [
        f"the {entity.noun} {scene} is {with_article(noun_phrase(world, entity))}",
        f"move {name} and you may find {name} {scene}",
        f"{name} and {other} may stand {scene}",
    ]
    if entity.colour != NATURAL:
        ways.append(f"{name} is {with_article(entity.noun)} that is {entity.colour}")
    if world.accessories[1:]:
        clothes = worn(choose(world.accessories[1:], rng))
        ways.append(f"put {clothes} on {name} and you have {name} wearing {clothes}")
    return choose(ways, rng)


def sample_document(world: World, rng: np.random.Generator) -> InterleavedDocument:
    """Make a document with two or three images: an album, a change, or an acquaintance."""
    text, renderings = choose((_album, _change, _acquaintance), rng)(world, rng)
    segments = parse_prompt(text, len(renderings)).segments
    images = [Image.fromarray(rendering.image) for rendering in renderings]
    parts = chain.from_iterable(zip(segments, [*images, ""], strict=True))
    return InterleavedDocument(parts=tuple(part for part in parts if part != ""))


def _album(world: World, rng: np.random.Generator) -> tuple[str, list[Rendering]]:
    """Unrelated images, each with its caption; throughout before it or throughout behind it."""
    renderings = [sample_rendering(world, rng) for _ in range(rng.integers(2, 4))]
    captions = [write_caption(world, rendering.description, rng).text for rendering in renderings]
    form = choose((f"{{}} {MARKER}", f"{MARKER} {{}}."), rng)
    return " ".join(form.format(caption) for caption in captions), renderings


def _change(world: World, rng: np.random.Generator) -> tuple[str, list[Rendering]]:
    """An image, what was done to it, and the outcome."""
    edit = sample_edit(world, rng)
    text = f"{edit.caption.text} {MARKER} {edit.instruction} {MARKER}"
    return text, [edit.before, edit.after]


def _acquaintance(world: World, rng: np.random.Generator) -> tuple[str, list[Rendering]]:
    """An entity in the studio, then the same one elsewhere."""
    description = world.sample_description(rng, figures=1)
    entity = description.figures[0].entity
    name = noun_phrase(world, entity)
    caption = write_caption(world, description, rng).text
    text = f"this is {with_article(name)} {MARKER} and once more: {caption} {MARKER}"
    return text, [portrait(world, entity, rng), render(world, description, rng)]

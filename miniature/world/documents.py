"""Reading matter of the world for stage 1: plain sentences, and documents with images between.

Nothing that is held out of training is mentioned or shown.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from kosmosg.prompts.prompt import MARKER, Prompt, parse_prompt
from miniature.world.captions import (
    ACCESSORY_NOUNS,
    SCENE_PHRASES,
    noun_phrase,
    with_article,
    write_caption,
)
from miniature.world.description import ACCESSORIES, SCENES, choose, entities, sample_description
from miniature.world.edits import sample_edit
from miniature.world.render import Rendering, portrait, render, sample_rendering

FACTS = (
    "a ball is round",
    "a star has five points",
    "a heart is round above and pointed below",
    "a moon looks like a sickle",
    "a flower has five petals and a yellow middle",
    "a fish has a tail and one eye",
    "a cat has two ears and two eyes",
    "a house has a roof, a door and a window",
    "there are palms, sand and water on the beach",
    "there are pines and grass in the forest",
    "there are white hills and flakes in the snow",
    "there are dunes and a cactus in the desert",
    "there are many small lights in the sky at night",
    "there are bubbles and weeds under the sea",
    "there are towers with windows in the city",
    "there is nothing but a pale wall in the studio",
    "a sketch is made of dark lines",
    "a watercolour is pale and soft",
    "a neon sign glows in the dark",
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """Text with images at its markers.

    Attributes:
        prompt: The text, cut at the places of the images.
        images: One per place, in order.
    """

    prompt: Prompt
    images: tuple[UInt8[np.ndarray, "64 64 3"], ...]


def sample_sentence(rng: np.random.Generator) -> str:
    """Draw a sentence about the world: a caption, a fact, or what follows from a description."""
    if (draw := rng.random()) < 0.4:
        return write_caption(sample_description(rng), rng).text
    if draw < 0.5:
        return choose(FACTS, rng)
    entity = choose(entities(), rng)
    name = with_article(noun_phrase(entity))
    scene = choose(SCENE_PHRASES[choose(SCENES[1:], rng)], rng)
    worn = ACCESSORY_NOUNS[choose(ACCESSORIES[1:], rng)]
    alike = choose([e for e in entities() if e.colour == entity.colour and e != entity], rng)
    return choose(
        (
            f"{name} is {with_article(entity.shape)} that is {entity.colour} and {entity.texture}",
            f"the {entity.shape} {scene} is {entity.colour} and {entity.texture}",
            f"put {worn} on {name} and you have {name} wearing {worn}",
            f"move {name} and you may find {name} {scene}",
            f"{name} and {with_article(noun_phrase(alike))} are both {entity.colour}",
        ),
        rng,
    )


def sample_document(rng: np.random.Generator) -> Document:
    """Draw a document of two or three images: an album, a change, or an acquaintance."""
    text, renderings = choose((_album, _change, _acquaintance), rng)(rng)
    images = tuple(rendering.image for rendering in renderings)
    return Document(prompt=parse_prompt(text, len(images)), images=images)


def _album(rng: np.random.Generator) -> tuple[str, list[Rendering]]:
    """Unrelated images, each with its caption; throughout before it or throughout behind it."""
    renderings = [sample_rendering(rng) for _ in range(rng.integers(2, 4))]
    captions = [write_caption(rendering.description, rng).text for rendering in renderings]
    form = choose((f"{{}} {MARKER}", f"{MARKER} {{}}."), rng)
    return " ".join(form.format(caption) for caption in captions), renderings


def _change(rng: np.random.Generator) -> tuple[str, list[Rendering]]:
    """An image, what was done to it, and the outcome."""
    edit = sample_edit(rng)
    text = f"{edit.caption.text} {MARKER} {edit.instruction} {MARKER}"
    return text, [edit.before, edit.after]


def _acquaintance(rng: np.random.Generator) -> tuple[str, list[Rendering]]:
    """An entity in the studio, then the same one elsewhere."""
    description = sample_description(rng, figures=1)
    entity = description.figures[0].entity
    name = noun_phrase(entity)
    caption = write_caption(description, rng).text
    text = f"this is {with_article(name)} {MARKER} and once more: {caption} {MARKER}"
    return text, [portrait(entity, rng), render(description, rng)]

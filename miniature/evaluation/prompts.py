"""What a model is asked for: prompts over what it never saw, in the words it was trained on.

Entities and arrangements are those that training leaves out (``world.is_held_out``). Where an
entity is given as an image to be put into a scene, beside another one or into clothes, no word of
the prompt speaks of it: prompts are made as stage 3 makes them, but from the caption of a stand-in,
since even the article would give a colour away ("an" goes with orange alone). An edit may name the
shape of what it changes, as its instruction does in training.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kosmosg.data.entities import interleave
from kosmosg.prompts.prompt import MARKER
from miniature.world import (
    ACCESSORIES,
    SCENES,
    STYLES,
    Description,
    Entity,
    Figure,
    portrait,
    render,
    sample_description,
    sample_edit,
    write_caption,
)
from miniature.world.description import choose, entities
from miniature.world.edits import KINDS

WEARING = "wearing"  # "<i> wearing a hat", beside the kinds of edits
CHANGES = (WEARING, *KINDS)
STAND_IN = Entity(shape="ball", colour="red", texture="plain")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One prompt and what it asks for.

    Attributes:
        prompt: Text with markers.
        images: The images at the markers.
        wanted: What should be drawn.
        target: A drawing of it, by the world itself.
        kind: Of ``CHANGES``, what is to be changed; empty where nothing is.
    """

    prompt: str
    images: tuple[Image.Image, ...]
    wanted: Description
    target: Image.Image
    kind: str = ""


CaseMaker = Callable[[np.random.Generator, int], Case]


def make_cases(make: CaseMaker, count: int, seed: int) -> list[Case]:
    """Draw cases, each from a generator of its own."""
    return [make(np.random.default_rng((seed, number)), number) for number in range(count)]


def caption_case(rng: np.random.Generator, number: int) -> Case:
    """Ask in words alone, for one or two entities in any scene and style."""
    wanted = sample_description(rng, held_out=True)
    caption = write_caption(wanted, rng)
    return _case(caption.text, (), wanted, rng)


def scene_case(rng: np.random.Generator, number: int) -> Case:
    """Give an entity in the studio, and ask for it somewhere else."""
    wanted = _alone(choose(entities(True), rng), scene=choose(SCENES[1:], rng))
    return _case_with_images(wanted, rng)


def two_case(rng: np.random.Generator, number: int) -> Case:
    """Give two entities, and ask for both in one image."""
    wanted = replace(sample_description(rng, held_out=True, figures=2), style=STYLES[0])
    return _case_with_images(wanted, rng)


def change_case(rng: np.random.Generator, number: int) -> Case:
    """Give an entity and dress it, or an image and an instruction; every kind in turn."""
    kind = CHANGES[number % len(CHANGES)]
    if kind == WEARING:
        worn = choose(ACCESSORIES[1:], rng)
        wanted = _alone(choose(entities(True), rng), scene=SCENES[0], accessory=worn)
        return replace(_case_with_images(wanted, rng), kind=kind)
    edit = sample_edit(rng, held_out=True, kind=kind)
    return Case(
        prompt=f"{MARKER} {edit.instruction}",
        images=(to_image(edit.before.image),),
        wanted=edit.after.description,
        target=to_image(edit.after.image),
        kind=kind,
    )


def to_image(pixels: UInt8[np.ndarray, "64 64 3"]) -> Image.Image:
    """Wrap what the world draws."""
    return Image.fromarray(pixels)


def _alone(entity: Entity, *, scene: str, accessory: str = ACCESSORIES[0]) -> Description:
    figure = Figure(entity=entity, accessory=accessory)
    return Description(figures=(figure,), relation=None, scene=scene, style=STYLES[0])


def _case_with_images(wanted: Description, rng: np.random.Generator) -> Case:
    """Give every entity as a portrait, and put a marker in the place of its words."""
    stand_ins = tuple(replace(figure, entity=STAND_IN) for figure in wanted.figures)
    caption = write_caption(replace(wanted, figures=stand_ins), rng)
    while caption.spans[0].start == 0:  # no training prompt begins with an image
        caption = write_caption(replace(wanted, figures=stand_ins), rng)
    spans = [(span.start, span.end) for span in caption.spans]
    prompt = interleave(caption.text, spans, drop_text=True)
    images = tuple(to_image(portrait(figure.entity, rng).image) for figure in wanted.figures)
    return _case(prompt.text, images, wanted, rng)


def _case(
    prompt: str, images: tuple[Image.Image, ...], wanted: Description, rng: np.random.Generator
) -> Case:
    target = to_image(render(wanted, rng).image)
    return Case(prompt=prompt, images=images, wanted=wanted, target=target)

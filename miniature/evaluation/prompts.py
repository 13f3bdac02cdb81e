"""What a model is asked for: prompts over what it never saw, in the words it was trained on.

Entities and arrangements are those that training leaves out (``World.is_held_out``). Where an
entity is given as an image to be put into a scene, beside another one or into clothes, no word of
the prompt speaks of it: prompts are made as stage 3 makes them, but from the caption of a stand-in,
since even the article would give something away ("an" goes with few nouns). An edit may name the
noun of what it changes, as its instruction does in training.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kosmosg.data.entities import interleave
from kosmosg.prompts.prompt import MARKER
from miniature.world import (
    NATURAL,
    NOTHING,
    SCENES,
    STYLES,
    Description,
    Entity,
    Figure,
    World,
    portrait,
    render,
    sample_edit,
    write_caption,
)
from miniature.world.description import choose
from miniature.world.edits import possible_kinds
from miniature.world.render import render_sprites

WEARING = "wearing"  # "<i> wearing a hat", beside the kinds of edits
OTHER_SCALE, OTHER_GROUNDS = 0.7, ("beach", "forest", "snow")  # of an entity's other image


@dataclass(frozen=True, kw_only=True)
class Case:
    """One prompt and what it asks for.

    Attributes:
        prompt: Text with markers.
        images: The images at the markers.
        wanted: What should be generated.
        target: The same as the world itself shows it.
        kind: What is to be changed; empty where nothing is.
    """

    prompt: str
    images: tuple[Image.Image, ...]
    wanted: Description
    target: Image.Image
    kind: str = ""


CaseMaker = Callable[[World, np.random.Generator, int], Case]


def make_cases(world: World, make: CaseMaker, count: int, seed: int) -> list[Case]:
    """Make cases, each from a generator of its own."""
    return [make(world, np.random.default_rng((seed, number)), number) for number in range(count)]


def caption_case(world: World, rng: np.random.Generator, number: int) -> Case:
    """Ask in words alone, for one or two entities in any scene and style."""
    wanted = world.sample_description(rng, held_out=True)
    caption = write_caption(world, wanted, rng)
    return _case(world, caption.text, (), wanted, rng)


def scene_case(world: World, rng: np.random.Generator, number: int) -> Case:
    """Give an entity in the studio, and ask for it somewhere else."""
    wanted = _alone(world.sample_entity(rng, True), scene=choose(SCENES[1:], rng))
    shown = portrait(world, wanted.figures[0].entity, np.random.default_rng(number))
    return _case(world, _prompt(world, wanted, rng), (to_image(shown.image),), wanted, rng)


def other_image_case(world: World, rng: np.random.Generator, number: int) -> Case:
    """Ask what ``scene_case`` asks, with another image: mirrored, smaller, on another ground."""
    case = scene_case(world, rng, number)
    again, ground = np.random.default_rng(number), OTHER_GROUNDS[number % len(OTHER_GROUNDS)]
    entity = case.wanted.figures[0].entity
    shown = portrait(world, entity, again, scene=ground, scale=OTHER_SCALE)
    return replace(case, images=(to_image(shown.image[:, ::-1]),))


def unseen_case(world: World, rng: np.random.Generator, number: int) -> Case:
    """Give a noun from a set of art that no part of the training has seen, and ask for a scene."""
    noun = choose(tuple(world.art.unseen), rng)
    entity = Entity(noun=noun, colour=NATURAL, art=world.arts[0])
    wanted = _alone(entity, scene=choose(SCENES[1:], rng))
    shown = _alone(entity, scene=SCENES[0])
    image = to_image(render_sprites(world, shown, [world.art.unseen[noun]], rng).image)
    return _case(world, _prompt(world, wanted, rng), (image,), wanted, rng)


def two_case(world: World, rng: np.random.Generator, number: int) -> Case:
    """Give two entities, and ask for both in one image."""
    wanted = replace(world.sample_description(rng, held_out=True, figures=2), style=STYLES[0])
    images = tuple(to_image(portrait(world, f.entity, rng).image) for f in wanted.figures)
    return _case(world, _prompt(world, wanted, rng), images, wanted, rng)


def change_case(world: World, rng: np.random.Generator, number: int) -> Case:
    """Give an entity and dress it, or an image and an instruction; every kind in turn."""
    kinds = possible_kinds(world)
    changes = (WEARING, *kinds) if world.accessories[1:] else kinds
    kind = changes[number % len(changes)]
    if kind == WEARING:
        worn = choose(world.accessories[1:], rng)
        wanted = _alone(world.sample_entity(rng, True), scene=SCENES[0], accessory=worn)
        images = (to_image(portrait(world, wanted.figures[0].entity, rng).image),)
        return replace(_case(world, _prompt(world, wanted, rng), images, wanted, rng), kind=kind)
    edit = sample_edit(world, rng, held_out=True, kind=kind)
    return Case(
        prompt=f"{MARKER} {edit.instruction}",
        images=(to_image(edit.before.image),),
        wanted=edit.after.description,
        target=to_image(edit.after.image),
        kind=kind,
    )


def to_image(pixels: UInt8[np.ndarray, "128 128 3"]) -> Image.Image:
    """Wrap what the world shows."""
    return Image.fromarray(pixels)


def _alone(entity: Entity, *, scene: str, accessory: str = NOTHING) -> Description:
    figure = Figure(entity=entity, accessory=accessory)
    return Description(figures=(figure,), relation=None, scene=scene, style=STYLES[0])


def _prompt(world: World, wanted: Description, rng: np.random.Generator) -> str:
    """Put a marker in the place of every entity's words."""
    stand_in = Entity(noun=world.nouns[0], colour="red", art=world.arts[0])
    stand_ins = tuple(replace(figure, entity=stand_in) for figure in wanted.figures)
    caption = write_caption(world, replace(wanted, figures=stand_ins), rng)
    while caption.spans[0].start == 0:  # no training prompt begins with an image
        caption = write_caption(world, replace(wanted, figures=stand_ins), rng)
    spans = [(span.start, span.end) for span in caption.spans]
    return interleave(caption.text, spans, drop_text=True).text


def _case(
    world: World,
    prompt: str,
    images: tuple[Image.Image, ...],
    wanted: Description,
    rng: np.random.Generator,
) -> Case:
    target = to_image(render(world, wanted, rng).image)
    return Case(prompt=prompt, images=images, wanted=wanted, target=target)

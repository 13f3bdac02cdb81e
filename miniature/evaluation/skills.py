"""A sheet with what the paper says KOSMOS-G can do (Figures 1 and 5), a few examples of each skill.

The examples are fixed, and their seeds count up from one: nothing is picked. All that is to be
drawn is held out of stages 2 and 3.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from kosmosg.evaluation.models import Generate
from miniature.evaluation.image_grids import Cell, lay_out
from miniature.evaluation.prompts import to_image
from miniature.world import Description, Entity, Figure, render

EXAMPLES_PER_SKILL = 3


@dataclass(frozen=True, kw_only=True)
class SkillExample:
    """A prompt, and what its input images show."""

    prompt: str
    inputs: tuple[Description, ...]


def _show(words: str, scene: str = "studio") -> Description:
    """Describe an input image: colour, texture and shape, and where it was taken."""
    colour, texture, shape = words.split()
    figure = Figure(entity=Entity(shape=shape, colour=colour, texture=texture), accessory="none")
    return Description(figures=(figure,), relation=None, scene=scene, style="picture")


def _example(prompt: str, *inputs: Description) -> SkillExample:
    return SkillExample(prompt=prompt, inputs=inputs)


SKILLS: dict[str, tuple[SkillExample, ...]] = {
    "Re-contextualisation": (
        _example("a <i> in the snow", _show("yellow dotted cat")),
        _example("a <i> under the sea", _show("green striped flower")),
        _example("a <i> on a city street", _show("blue striped fish")),
    ),
    "Stylisation": (
        _example("a sketch of a <i>", _show("pink plain house")),
        _example("a neon sign of a <i>", _show("purple dotted star")),
        _example("a watercolour of a <i> in the forest", _show("cyan plain heart")),
    ),
    "Accessories": (
        _example("a <i> wearing a hat", _show("red striped cat")),
        _example("a <i> with glasses on the beach", _show("green plain fish")),
        _example("a <i> wearing a crown at night", _show("pink plain ball")),
    ),
    "Editing": (
        _example("<i> make it yellow", _show("red dotted cat", "beach")),
        _example("<i> give it stripes", _show("green plain flower", "desert")),
        _example("<i> move it into the snow", _show("red plain house", "city")),
    ),
    "Two entities": (
        _example("a <i> next to a <i>", _show("yellow plain star"), _show("pink striped cat")),
        _example(
            "a <i> on top of a <i> in the desert",
            *(_show("blue striped fish"), _show("yellow striped house")),
        ),
        _example(
            "a <i> above a <i> in the forest",
            *(_show("blue plain cat"), _show("cyan dotted ball")),
        ),
    ),
    "Text alone": (
        _example("a cyan striped star in the forest"),
        _example("a red dotted fish wearing a crown under the sea"),
        _example("a purple moon next to a green striped flower at the beach"),
    ),
}


def draw_skills(generate: Generate, *, seed: int = 0) -> Image.Image:
    """Draw every example, one row per skill.

    Args:
        generate: The model.
        seed: Decides the input images; that of example n is drawn from ``seed + n``.
    """
    examples = [example for row in SKILLS.values() for example in row]
    inputs = [
        tuple(
            to_image(render(shown, np.random.default_rng((seed, number, place))).image)
            for place, shown in enumerate(example.inputs)
        )
        for number, example in enumerate(examples)
    ]
    seeds = range(seed, seed + len(examples))
    outputs = generate([example.prompt for example in examples], inputs, seeds)
    cells = [
        Cell(inputs=given, prompt=example.prompt, output=output)
        for example, given, output in zip(examples, inputs, outputs, strict=True)
    ]
    return lay_out(cells, EXAMPLES_PER_SKILL, titles=tuple(SKILLS))

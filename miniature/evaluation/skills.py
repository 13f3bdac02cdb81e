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
from miniature.world import NOTHING, Description, Entity, Figure, World, render

EXAMPLES_PER_SKILL = 3


@dataclass(frozen=True, kw_only=True)
class SkillExample:
    """A prompt, and what its input images show."""

    prompt: str
    inputs: tuple[Description, ...]


def _show(words: str, scene: str = "studio") -> Description:
    """Describe an input image: colour, set and noun, and where it was taken."""
    colour, art, noun = words.split()
    figure = Figure(entity=Entity(noun=noun, colour=colour, art=art), accessory=NOTHING)
    return Description(figures=(figure,), relation=None, scene=scene, style="plain")


def _example(prompt: str, *inputs: Description) -> SkillExample:
    return SkillExample(prompt=prompt, inputs=inputs)


SKILLS: dict[str, tuple[SkillExample, ...]] = {
    "Re-contextualisation": (
        _example("a <i> in the snow", _show("natural clay penguin")),
        _example("a <i> under the sea", _show("natural flat owl")),
        _example("a <i> on a city street", _show("natural clay tiger")),
    ),
    "Stylisation": (
        _example("a pencil drawing of a <i>", _show("natural flat frog")),
        _example("a neon sign of a <i>", _show("natural clay bee")),
        _example("pixel art of a <i> in the forest", _show("natural flat strawberry")),
    ),
    "Accessories": (
        _example("a <i> wearing a crown on the beach", _show("natural clay penguin")),
        _example("a <i> with glasses", _show("natural flat owl")),
        _example("a <i> wearing a hat at night", _show("natural clay dog")),
    ),
    "Editing": (
        _example("<i> make it blue", _show("natural clay monkey", "beach")),
        _example("<i> put a crown on it", _show("natural flat frog", "forest")),
        _example("<i> move it into the snow", _show("natural clay tiger", "city")),
    ),
    "Two entities": (
        _example("a <i> next to a <i>", _show("natural clay penguin"), _show("natural flat owl")),
        _example(
            "a <i> on top of a <i> in the desert",
            *(_show("natural flat owl"), _show("purple clay apple")),
        ),
        _example(
            "a <i> next to a <i> on the beach",
            *(_show("natural clay tiger"), _show("natural flat strawberry")),
        ),
    ),
    "Text alone": (
        _example("a penguin wearing a crown on the beach"),
        _example("a red fox under the sea"),
        _example("a dog next to a flat frog in the snow"),
    ),
}


def draw_skills(world: World, generate: Generate, *, seed: int = 0) -> Image.Image:
    """Draw every example, one row per skill.

    Args:
        world: Has the input images.
        generate: The model.
        seed: Decides the input images; that of example n is drawn from ``seed + n``.
    """
    examples = [example for row in SKILLS.values() for example in row]
    inputs = [
        tuple(
            to_image(render(world, shown, np.random.default_rng((seed, number, place))).image)
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

"""The sheet for the README: examples over what is held out, in the words of the world."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from kosmosg.prompts.prompt import MARKER, parse_prompt
from miniature.evaluation.skills import EXAMPLES_PER_SKILL, SKILLS, SkillExample, draw_skills
from miniature.world import NATURAL, RELATIONS, Entity, World
from miniature.world.art import LIST
from miniature.world.description import TINTS
from miniature.world.vocabulary import sample_texts
from tests.miniature.art import SETS, write_art

EXAMPLES = [(skill, example) for skill, row in SKILLS.items() for example in row]
PUBLIC = sorted(tomllib.loads(LIST.read_text())["nouns"])
NAMED = re.compile(rf"(?:({'|'.join(TINTS)}) )?(?:({'|'.join(SETS)}) )?({'|'.join(PUBLIC)})")


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The nouns of the public art, whose positions decide what is held out."""
    return World.open(write_art(tmp_path_factory.mktemp("public") / "art", PUBLIC))


def entities_of(example: SkillExample) -> list[Entity]:
    """Those of the input images, or else of the words."""
    if example.inputs:
        return [shown.figures[0].entity for shown in example.inputs]
    return [
        Entity(colour=colour or NATURAL, art=art or SETS[0], noun=noun)
        for colour, art, noun in NAMED.findall(example.prompt)
    ]


def after_edit(prompt: str, entity: Entity) -> Entity:
    changes = {"make it blue": {"colour": "blue"}}
    return Entity(**(vars(entity) | changes.get(prompt.removeprefix(f"{MARKER} "), {})))


@pytest.mark.parametrize(("skill", "example"), EXAMPLES)
def test_examples_show_what_is_held_out(public: World, skill: str, example: SkillExample) -> None:
    parse_prompt(example.prompt, len(example.inputs))
    found = entities_of(example)
    assert found
    if skill == "Editing":
        assert public.is_held_out(after_edit(example.prompt, found[0]))
        return
    assert all(map(public.is_held_out, found))
    relations = [relation for relation in RELATIONS if relation in example.prompt]
    assert len(relations) == len(found) - 1
    if relations:
        assert public.is_held_out_arrangement(found[0].noun, found[1].noun, relations[0])


def test_examples_use_the_words_of_the_world(public: World) -> None:
    known = {word for text in sample_texts(public) for word in re.findall(r"\w+", text)}
    for _, example in EXAMPLES:
        assert set(re.findall(r"\w+", example.prompt.replace(MARKER, " "))) <= known


def test_a_sheet_with_a_row_for_each_skill(public: World, tmp_path: Path) -> None:
    asked: list[tuple[str, int, int]] = []

    def generate(
        prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], seeds: Sequence[int]
    ) -> list[Image.Image]:
        asked.extend(zip(prompts, map(len, images), seeds, strict=True))
        return [Image.new("RGB", (64, 64), (seed, 0, 0)) for seed in seeds]

    sheet = draw_skills(public, generate, seed=40)
    assert [prompt for prompt, _, _ in asked] == [example.prompt for _, example in EXAMPLES]
    assert [seed for _, _, seed in asked] == [*range(40, 40 + len(EXAMPLES))]
    assert all(len(row) == EXAMPLES_PER_SKILL for row in SKILLS.values())
    assert sheet.width > 3 * 3 * 128
    colours = {colour for _, colour in sheet.getcolors(2**24) or []}
    assert {(seed, 0, 0) for _, _, seed in asked} <= colours

"""What models are asked for: held out, in the words of the training, and no word too many."""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from PIL import Image

from kosmosg.data.entities import draw_prompt
from kosmosg.data.options import EntityOptions
from kosmosg.data.preprocessing import PromptPreparer
from kosmosg.data.schema import CompositionalSample, EditSample, EntityImages
from kosmosg.prompts.prompt import MARKER, Prompt, parse_prompt
from miniature.evaluation.prompts import (
    WEARING,
    Case,
    CaseMaker,
    caption_case,
    change_case,
    make_cases,
    other_image_case,
    scene_case,
    two_case,
    unseen_case,
)
from miniature.world import (
    NOTHING,
    SCENES,
    Description,
    World,
    write_caption,
)
from miniature.world.description import TINTS
from miniature.world.edits import KINDS
from tests import tiny
from tests.miniature.art import NOUNS, SETS, UNSEEN, UNSEEN_HUE, hue

HELD_OUT = (caption_case, scene_case, other_image_case, two_case, change_case)
MAKERS = (*HELD_OUT, unseen_case)
ENTITY_WORDS = re.compile(rf"\b({'|'.join((*TINTS, *NOUNS, *SETS, 'an'))})\b")


def held_out(world: World, description: Description) -> bool:
    entities = [figure.entity for figure in description.figures]
    if not all(map(world.is_held_out, entities)) or description.relation is None:
        return all(map(world.is_held_out, entities))
    first, second = (entity.noun for entity in entities)
    return world.is_held_out_arrangement(first, second, description.relation)


@pytest.mark.parametrize("make", HELD_OUT)
def test_all_that_is_asked_for_is_held_out(world: World, make: CaseMaker) -> None:
    for case in make_cases(world, make, 60, seed=1):
        assert held_out(world, case.wanted), case.prompt
        parse_prompt(case.prompt, len(case.images))


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_seed_asks_for_the_same(world: World, make: CaseMaker) -> None:
    def contents(cases: list[Case]) -> list[tuple[str, Description, bytes, list[bytes]]]:
        return [
            (c.prompt, c.wanted, c.target.tobytes(), [i.tobytes() for i in c.images]) for c in cases
        ]

    few, many = make_cases(world, make, 4, seed=2), make_cases(world, make, 9, seed=2)
    assert contents(few) == contents(many)[:4]
    assert contents(few) != contents(make_cases(world, make, 4, seed=3))


@pytest.mark.parametrize("make", [scene_case, other_image_case, unseen_case, two_case])
def test_images_alone_tell_the_entities(world: World, make: CaseMaker) -> None:
    for case in make_cases(world, make, 60, seed=4):
        assert not ENTITY_WORDS.search(case.prompt)
        assert not case.prompt.startswith(MARKER)
        assert len(case.images) == len(case.wanted.figures)


def test_prompts_are_worded_as_stage_3_words_them(world: World) -> None:
    """Every prompt is what the preparer makes of a caption, its words dropped."""
    rng = np.random.default_rng(0)
    image = Image.new("RGB", (128, 128))
    forms = set()
    asked_for = [*product(SCENES[1:], [NOTHING]), *product(SCENES[:1], world.accessories[1:])]
    for scene, accessory in asked_for:
        for _ in range(400):
            description = world.sample_description(rng, figures=1)
            figure = replace(description.figures[0], accessory=accessory)
            shown = replace(description, figures=(figure,), scene=scene, style="plain")
            caption = write_caption(world, shown, rng)
            if caption.spans[0].start == 0:
                continue
            span = (caption.spans[0].start, caption.spans[0].end)
            entity = EntityImages(span=span, crop=image, masked_crop=image)
            sample = CompositionalSample(caption=caption.text, entities=(entity,), target=image)
            forms.add(draw_prompt(sample, EntityOptions(drop_text=1.0), rng)[0].text)
    wearing = [case for case in make_cases(world, change_case, 120, seed=5) if case.kind == WEARING]
    assert len(wearing) == 20
    for case in [*make_cases(world, scene_case, 60, seed=5), *wearing]:
        assert case.prompt in forms


def test_a_new_scene_is_new(world: World) -> None:
    scenes = {case.wanted.scene for case in make_cases(world, scene_case, 80, seed=6)}
    assert scenes == set(SCENES[1:])


def test_another_image_shows_the_same_mirrored_and_smaller(world: World) -> None:
    makers = (scene_case, other_image_case)
    for one, other in zip(*(make_cases(world, make, 12, seed=6) for make in makers), strict=True):
        assert (one.prompt, one.wanted) == (other.prompt, other.wanted)
        assert one.images[0].tobytes() != other.images[0].tobytes()


def test_unseen_art_is_seen_in_its_own_row_alone(world: World) -> None:
    cases = make_cases(world, unseen_case, 30, seed=6)
    assert {case.wanted.figures[0].entity.noun for case in cases} == set(UNSEEN)
    dark_green = np.array(hue(*UNSEEN_HUE))  # of all that set
    for case in cases:
        pixels = np.asarray(case.images[0], int)
        assert (np.abs(pixels - dark_green).max(axis=2) < 25).sum() > 300


def test_every_kind_of_change_has_its_turn(world: World) -> None:
    cases = make_cases(world, change_case, 12, seed=7)
    assert [case.kind for case in cases] == [WEARING, *KINDS] * 2
    for case in cases:
        assert len(case.images) == 1
        assert case.target.tobytes() != case.images[0].tobytes()


def test_instructions_are_read_as_stage_3_reads_them(world: World, tmp_path) -> None:
    """The space behind the marker makes no difference to the language model."""
    preparer = PromptPreparer(
        tokenizer=tiny.write_tokenizer(tmp_path, 320),
        image_slots=8,
        image_size=56,
        target_size=None,
        drop_caption=1.0,
    )
    edits = [case for case in make_cases(world, change_case, 28, seed=8) if case.kind != WEARING]
    for case in edits:
        instruction = case.prompt.removeprefix(MARKER).strip()
        sample = EditSample(
            caption="", instruction=instruction, before=case.images[0], after=case.target
        )
        trained = preparer(sample, np.random.default_rng(0)).prompt
        asked = preparer.tokenizer.tokenize_prompt(parse_prompt(case.prompt, 1), 8)
        assert asked == trained
        assert asked == preparer.tokenizer.tokenize_prompt(Prompt(segments=("", instruction)), 8)

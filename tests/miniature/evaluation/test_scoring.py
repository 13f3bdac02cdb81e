"""Scores: a table of what was asked for, what was read, and what of it is right."""

from dataclasses import replace

import pytest
from PIL import Image

from kosmosg.evaluation.metrics import wilson
from miniature.evaluation.probe_labels import SIDE_BY_SIDE, STACKED, Reading
from miniature.evaluation.prompts import WEARING, Case
from miniature.evaluation.scoring import (
    score_caption,
    score_change,
    score_noun,
    score_scene,
    score_two,
    summarise,
)
from miniature.world import Description, Entity, Figure


def figure(words: str, accessory: str = "none") -> Figure:
    colour, art, noun = words.split()
    entity = Entity(noun=noun, colour=colour, art=art)
    return Figure(entity=entity, accessory=accessory)


CAT, SUN = figure("red clay cat"), figure("blue flat sun")
BLANK = Image.new("RGB", (64, 64))


def case(*figures: Figure, relation: str | None = None, kind: str = "", **changes: str) -> Case:
    description = Description(figures=figures, relation=relation, scene="snow", style="pencil")
    wanted = replace(description, **changes)
    return Case(prompt="", images=(), wanted=wanted, target=BLANK, kind=kind)


def reading(*figures: Figure, arrangement: str | None = None, **changes: str) -> Reading:
    shown = Reading(figures=figures, arrangement=arrangement, scene="snow", style="pencil")
    return replace(shown, **changes)


@pytest.mark.parametrize(
    ("seen", "attributes", "whole"),
    [
        (reading(CAT), 4, 1),
        (reading(CAT, style="neon"), 4, 1),  # style apart
        (reading(CAT, scene="sea"), 3, 0),
        (reading(figure("red flat cat")), 3, 0),
        (reading(figure("blue flat sun"), scene="sea"), 0, 0),
        (reading(replace(CAT, accessory="hat")), 4, 0),  # unasked for
        (reading(CAT, SUN, arrangement=SIDE_BY_SIDE), 4, 0),  # one too many
        (reading(SUN, CAT, arrangement=SIDE_BY_SIDE), 4, 0),
    ],
)
def test_attributes_of_one(seen: Reading, attributes: int, whole: int) -> None:
    scores = score_caption(case(CAT), seen)
    assert scores["attributes"] == (attributes, 4)
    assert scores["all"] == (whole, 1)
    assert scores["number"] == (int(len(seen.figures) == 1), 1)
    assert scores["style"] == (int(seen.style == "pencil"), 1)
    assert "accessory" not in scores
    assert not scores.keys() & {"relation", "both entities"}


def test_an_accessory_counts_if_asked_for() -> None:
    wanted = case(replace(CAT, accessory="hat"))
    assert score_caption(wanted, reading(CAT))["attributes"] == (4, 5)
    assert score_caption(wanted, reading(CAT))["accessory"] == (0, 1)
    assert score_caption(wanted, reading(*wanted.wanted.figures))["all"] == (1, 1)


@pytest.mark.parametrize(
    ("relation", "seen", "attributes", "related", "whole"),
    [
        ("next to", reading(CAT, SUN, arrangement=SIDE_BY_SIDE), 7, 1, 1),
        ("next to", reading(SUN, CAT, arrangement=SIDE_BY_SIDE), 7, 1, 1),
        ("next to", reading(CAT, SUN, arrangement=STACKED), 7, 0, 0),
        ("on top of", reading(CAT, SUN, arrangement=STACKED), 7, 1, 1),
        ("on top of", reading(SUN, CAT, arrangement=STACKED), 7, 0, 0),
        ("on top of", reading(CAT, SUN, arrangement=SIDE_BY_SIDE), 7, 0, 0),
        # Colours changed places.
        (
            "next to",
            reading(*(figure("blue clay cat"), figure("red flat sun")), arrangement=SIDE_BY_SIDE),
            *(5, 1, 0),
        ),
        ("next to", reading(CAT), 4, 0, 0),
        ("next to", reading(SUN), 4, 0, 0),
    ],
)
def test_attributes_of_two(
    relation: str, seen: Reading, attributes: int, related: int, whole: int
) -> None:
    scores = score_caption(case(CAT, SUN, relation=relation), seen)
    assert scores["attributes"] == (attributes, 7)
    assert scores["relation"] == (related, 1)
    assert scores["both entities"] == (int(attributes == 7), 1)
    assert scores["all"] == (whole, 1)


@pytest.mark.parametrize(
    ("seen", "entity", "scene"),
    [
        (reading(CAT), 1, 1),
        (reading(replace(CAT, accessory="hat"), style="neon"), 1, 1),
        (reading(CAT, scene="city"), 1, 0),
        (reading(figure("red flat cat")), 0, 1),
        (reading(CAT, CAT, arrangement=SIDE_BY_SIDE), 0, 1),
    ],
)
def test_an_entity_in_a_scene(seen: Reading, entity: int, scene: int) -> None:
    scores = score_scene(case(CAT), seen)
    assert scores["entity"] == (entity, 1)
    assert scores["scene"] == (scene, 1)
    assert scores["entity and scene"] == (entity * scene, 1)


def test_a_noun_in_whatever_art() -> None:
    for seen, noun in ((CAT, 1), (figure("blue flat cat"), 1), (figure("red clay dog"), 0)):
        scores = score_noun(case(CAT), reading(seen, scene="sea"))
        assert scores == {"noun": (noun, 1), "scene": (0, 1)}
    assert score_noun(case(CAT), reading(CAT, CAT, arrangement=STACKED))["noun"] == (0, 1)


@pytest.mark.parametrize(
    ("seen", "both", "each"),
    [
        (reading(CAT, SUN, arrangement=SIDE_BY_SIDE), 1, 2),
        (reading(SUN, CAT, arrangement=STACKED, scene="sea"), 1, 2),
        (reading(CAT, CAT, arrangement=STACKED), 0, 1),
        (reading(SUN), 0, 1),
        (reading(figure("red flat cat"), SUN, arrangement=STACKED), 0, 1),
    ],
)
def test_two_entities(seen: Reading, both: int, each: int) -> None:
    scores = score_two(case(CAT, SUN, relation="next to"), seen)
    assert scores["both entities"] == (both, 1)
    assert scores["each entity"] == (each, 2)
    assert scores["relation"] == (int(seen.arrangement == SIDE_BY_SIDE), 1)
    assert scores["scene"] == (int(seen.scene == "snow"), 1)


HATTED = replace(CAT, accessory="hat")


@pytest.mark.parametrize(
    ("asked", "seen", "changed", "kept"),
    [
        (case(HATTED, kind=WEARING), reading(HATTED, scene="sea"), 1, 1),
        (case(HATTED, kind=WEARING), reading(CAT), 0, 1),
        (case(HATTED, kind=WEARING), reading(replace(SUN, accessory="hat")), 1, 0),
        (case(HATTED, kind="colour"), reading(HATTED), 1, 1),
        (case(HATTED, kind="colour"), reading(CAT), 1, 0),
        (case(CAT, kind="noun"), reading(figure("red clay dog")), 0, 1),
        (case(CAT, kind="colour"), reading(figure("blue clay cat"), style="neon"), 0, 1),
        (case(CAT, kind="scene"), reading(CAT, style="neon"), 1, 1),
        (case(CAT, kind="scene"), reading(CAT, scene="sea"), 0, 1),
        (case(CAT, kind="style"), reading(CAT, scene="sea"), 1, 1),
        (case(CAT, kind="style"), reading(SUN), 1, 0),
        (
            case(CAT, SUN, relation="on top of", kind="colour"),
            *(reading(SUN, CAT, arrangement=STACKED), 1, 1),
        ),
        (case(CAT, SUN, relation="on top of", kind="colour"), reading(CAT), 0, 0),
    ],
)
def test_changes(asked: Case, seen: Reading, changed: int, kept: int) -> None:
    scores = score_change(asked, seen)
    assert scores["changed"] == (changed, 1)
    assert scores["kept"] == (kept, 1)
    assert scores["right"] == scores[asked.kind] == (changed * kept, 1)


def test_a_change_of_the_wrong_one_of_two_is_wrong() -> None:
    """The colours are there, and so are the nouns, but not in the same figures."""
    asked = case(CAT, SUN, relation="next to", kind="colour")
    seen = reading(figure("blue clay cat"), figure("red flat sun"), arrangement=SIDE_BY_SIDE)
    assert {name: right for name, (right, _) in score_change(asked, seen).items()} == {
        "right": 0,
        "changed": 1,
        "kept": 1,
        "colour": 0,
    }


def test_scores_are_summed_by_name() -> None:
    found = dict(summarise([{"a": (1, 2), "b": (1, 1)}, {"a": (2, 2)}, {"a": (0, 1), "b": (0, 1)}]))
    assert found == {"a": wilson(3, 5, samples=3), "b": wilson(1, 2)}
    assert [*found] == ["a", "b"]

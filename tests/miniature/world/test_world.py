"""The world: the same from the same seed, and true to what is said of it."""

import re
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from kosmosg.data.schema import InterleavedDocument
from kosmosg.errors import DataError
from miniature.world import (
    COLOURS,
    NATURAL,
    NOTHING,
    RELATIONS,
    SCENES,
    STYLES,
    Art,
    Description,
    Entity,
    Figure,
    World,
    entity_crops,
    noun_phrase,
    portrait,
    render,
    sample_document,
    sample_edit,
    sample_rendering,
    sample_sentence,
    write_caption,
)
from miniature.world.description import TINTS
from miniature.world.edits import KINDS
from tests.miniature.art import ACCESSORIES, NOUNS, SETS, star

FIGURE = re.compile(
    rf"(?:(?P<colour>{'|'.join(TINTS)}) )?(?:(?P<art>{'|'.join(SETS)}) )?"
    rf"(?P<noun>{'|'.join(NOUNS)})\b"
    rf"(?: (?:wearing|with) (?:a )?(?P<accessory>{'|'.join(ACCESSORIES)}))?"
)
RELATION_WORDS = {"next": 0, "beside": 0, "and": 0, "top": 1, "standing": 1}
SCENE_WORDS = {"woods": "forest", "water": "sea"}
STYLE_WORDS = {"pixel": "pixels"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def describe(
    noun: str = "cat", colour: str = NATURAL, art: str = SETS[0], accessory: str = NOTHING
) -> Description:
    """One figure in the studio."""
    figure = Figure(entity=Entity(noun=noun, colour=colour, art=art), accessory=accessory)
    return Description(figures=(figure,), relation=None, scene="studio", style="plain")


def read_figures(text: str) -> list[Figure]:
    return [
        Figure(
            entity=Entity(
                noun=match["noun"],
                colour=match["colour"] or NATURAL,
                art=match["art"] or SETS[0],
            ),
            accessory=match["accessory"] or NOTHING,
        )
        for match in FIGURE.finditer(text)
    ]


def read_caption(text: str) -> Description:
    """Understand a caption from its words alone."""
    matches = [*FIGURE.finditer(text)]
    between = text[matches[0].end() : matches[-1].start()].split() if len(matches) == 2 else []
    relations = {RELATIONS[RELATION_WORDS[word]] for word in between if word in RELATION_WORDS}
    assert len(relations) == len(matches) - 1
    words = re.findall(r"\w+", FIGURE.sub("", text))
    scenes = set(SCENES) & {SCENE_WORDS.get(word, word) for word in words}
    styles = set(STYLES[1:]) & {STYLE_WORDS.get(word, word) for word in words}
    assert len(scenes) <= 1
    assert len(styles) <= 1
    return Description(
        figures=tuple(read_figures(text)),
        relation=next(iter(relations), None),
        scene=next((scene for scene in SCENES if scene in scenes), "studio"),
        style=next(iter(styles), "plain"),
    )


def differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Find pixels that differ by more than what a mask of nearly nothing, rounded down, lets by."""
    return np.asarray((np.abs(one.astype(int) - other) > 3).any(axis=2))


def texts_of(document: InterleavedDocument) -> list[str]:
    return [part for part in document.parts if isinstance(part, str)]


def facts(description: Description) -> dict[str, Any]:
    """All that an edit can change of an image with one figure, by the kinds of edits."""
    (figure,) = description.figures
    return {
        **vars(figure.entity),
        "accessory": figure.accessory,
        "scene": description.scene,
        "style": description.style,
    }


def test_the_same_seed_gives_the_same_bytes(world: World) -> None:
    one, other = sample_rendering(world, rng(3)), sample_rendering(world, rng(3))
    assert one.description == other.description
    assert one.image.tobytes() == other.image.tobytes()
    assert one.masks.tobytes() == other.masks.tobytes()
    assert one.image.tobytes() != sample_rendering(world, rng(4)).image.tobytes()
    edit, again = sample_edit(world, rng(3)), sample_edit(world, rng(3))
    assert edit.instruction == again.instruction
    assert edit.after.image.tobytes() == again.after.image.tobytes()
    document, copy = sample_document(world, rng(3)), sample_document(world, rng(3))
    assert document == copy
    assert sample_sentence(world, rng(3)) == sample_sentence(world, rng(3))


def test_rendering_takes_the_same_share_of_chance_whatever_is_shown(world: World) -> None:
    plain, city = rng(), rng()
    render(world, describe(), plain)
    render(world, replace(describe(accessory="hat"), scene="city", style="watercolour"), city)
    assert plain.random() == city.random()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("scene", SCENES)
def test_every_noun_and_accessory_can_be_shown_everywhere(
    world: World, scene: str, style: str
) -> None:
    for number, (noun, accessory) in enumerate(product(NOUNS, world.accessories)):
        if number % len(STYLES) != STYLES.index(style):
            continue
        description = replace(describe(noun, accessory=accessory), scene=scene, style=style)
        rendering = render(world, description, rng(number))
        assert rendering.image.shape == (128, 128, 3)
        assert rendering.image.dtype == np.uint8
        assert rendering.image.std() > 10
        assert bool((rendering.image != rendering.undressed).any()) == (accessory != NOTHING)


def test_all_entities_look_different(world: World) -> None:
    images = {portrait(world, entity, rng(1)).image.tobytes() for entity in world.entities(None)}
    assert len(images) == len(world.entities(None))


def test_a_tint_that_looks_like_the_sprite_is_no_entity() -> None:
    tinted = {f"star {chr(ord('a') + n)}": name for n, name in enumerate(TINTS)}
    sprites = {noun: star(5, 0.6, TINTS[name]) for noun, name in tinted.items()}
    sprites |= {noun: star(4, 0.5, (128, 128, 128)) for noun in NOUNS}
    small = World(Art(sets={"": sprites}, accessories={}, unseen={}))
    for noun, name in tinted.items():
        tints = {e.colour for e in small.entities(None) if e.noun == noun}
        assert tints == set(COLOURS) - {name}
    assert {e.colour for e in small.entities(None) if e.noun == "cat"} == set(COLOURS)


@pytest.mark.parametrize("colour", TINTS)
def test_a_tinted_sprite_has_the_colour_of_its_name(world: World, colour: str) -> None:
    for noun in NOUNS:
        sprite = np.asarray(world.sprite(Entity(noun=noun, colour=colour, art=SETS[0])), float)
        seen = sprite[sprite[..., 3] > 250][:, :3]
        seen = seen[seen.max(axis=1) > 120]  # not the dark middle
        distances = {name: np.abs(seen.mean(axis=0) - TINTS[name]).sum() for name in TINTS}
        assert min(distances, key=lambda name: distances[name]) == colour


def test_figures_are_whole_and_apart(world: World) -> None:
    source = rng(5)
    for _ in range(150):
        rendering = sample_rendering(world, source, held_out=None)
        for mask in rendering.masks:
            assert 400 < (mask > 127).sum() < 6000
            assert not mask[[0, -1]].any()
            assert not mask[:, [0, -1]].any()
        assert rendering.masks.sum(axis=0, dtype=int).max() <= 256  # rounding where two touch
        assert not rendering.accessory_masks[:, [0, -1]].any()


@pytest.mark.parametrize("relation", RELATIONS)
def test_figures_stand_as_the_relation_says(world: World, relation: str) -> None:
    pair = (describe("cat").figures[0], describe("sun", "blue").figures[0])
    description = replace(describe(), figures=pair, relation=relation)
    for seed in range(20):
        first, second = render(world, description, rng(seed)).masks > 0
        top, bottom = np.flatnonzero(second.any(axis=1))[[0, -1]]
        lowest = np.flatnonzero(first.any(axis=1))[-1]
        if relation == "next to":
            assert abs(lowest - bottom) <= 8
            assert not (first.any(axis=0) & second.any(axis=0)).any()
        else:
            assert -8 <= top - lowest <= 2
            assert lowest < bottom - 20


@pytest.mark.parametrize("colour", COLOURS)
def test_a_mask_covers_the_body_and_nothing_else(world: World, colour: str) -> None:
    rendering = render(world, describe(colour=colour, accessory="hat"), rng(2))
    other = render(
        world, describe(colour="green" if colour != "green" else "red", accessory="hat"), rng(2)
    )
    mask, hat = rendering.masks[0], rendering.accessory_masks[0]
    changed = differs(rendering.image, other.image)
    assert not changed[mask == 0].any()
    assert changed[(mask == 255) & (hat == 0)].mean() > 0.9  # the middle is dark in all colours


def test_an_accessory_changes_only_what_its_mask_covers(world: World) -> None:
    for accessory in ACCESSORIES:
        for noun in NOUNS:
            rendering = render(world, describe(noun, accessory=accessory), rng(6))
            changed = differs(rendering.image, rendering.undressed)
            assert changed.sum() > 100
            assert not changed[rendering.accessory_masks[0] == 0].any()
            assert np.array_equal(rendering.undressed, render(world, describe(noun), rng(6)).image)


def test_crops_are_square_and_hold_the_entity(world: World) -> None:
    source = rng(7)
    for _ in range(60):
        rendering = sample_rendering(world, source)
        for mask, crop in zip(rendering.masks, entity_crops(rendering), strict=True):
            left, top, right, bottom = crop.box
            assert right - left == bottom - top <= 128
            assert min(crop.box) >= 0
            assert max(crop.box) <= 128
            outside = mask.copy()
            outside[top:bottom, left:right] = 0
            assert not outside.any()
            assert crop.crop.shape == crop.masked.shape == (128, 128, 3)


def test_a_masked_crop_is_the_entity_on_white(world: World) -> None:
    rendering = render(world, replace(describe("sun", "blue"), scene="forest"), rng(1))
    crop = entity_crops(rendering)[0]
    assert (crop.masked[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert (crop.crop[[0, 0, -1, -1], [0, -1, 0, -1]] != 255).any()
    assert np.array_equal(crop.crop[64, 64], crop.masked[64, 64])


def test_crops_show_no_accessories(world: World) -> None:
    bare, worn = (
        render(world, describe("cat", accessory=name), rng(8)) for name in (NOTHING, "hat")
    )
    expected, found = entity_crops(bare)[0], entity_crops(worn)[0]
    assert np.array_equal(found.masked, expected.masked)
    assert np.array_equal(found.crop, expected.crop)


def test_captions_can_be_read_back(world: World) -> None:
    source = rng(9)
    for _ in range(400):
        description = world.sample_description(source, held_out=None)
        for _ in range(2):
            assert read_caption(write_caption(world, description, source).text) == description


def test_every_scene_and_style_and_accessory_has_its_words(world: World) -> None:
    source = rng(10)
    for scene, style, accessory in product(SCENES, STYLES, world.accessories):
        description = replace(describe(accessory=accessory), scene=scene, style=style)
        assert read_caption(write_caption(world, description, source).text) == description


def test_spans_match_the_text(world: World) -> None:
    source = rng(11)
    for _ in range(200):
        description = world.sample_description(source)
        caption = write_caption(world, description, source)
        for figure, span in zip(description.figures, caption.spans, strict=True):
            phrase = caption.text[span.start : span.end]
            phrases = [noun_phrase(world, figure.entity, say_first=said) for said in (False, True)]
            assert phrase in phrases
            assert caption.text[span.article : span.start] in ("", "a ", "an ")
            vowel = phrase[0] in "aeiou"
            assert span.article == span.start or (span.start - span.article == 3) == vowel


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_changes_only_what_it_speaks_of(world: World, kind: str) -> None:
    source = rng(13)
    for _ in range(25):
        edit = sample_edit(world, source, kind=kind)
        before, after = edit.before, edit.after
        assert differs(before.image, after.image).any()
        assert read_caption(edit.caption.text) == before.description
        assert world.may_be_trained_on(before.description)
        assert world.may_be_trained_on(after.description)
        if len(before.description.figures) == 1:
            one, other = facts(before.description), facts(after.description)
            assert [name for name in one if one[name] != other[name]] == [kind]
        if kind != "noun":
            assert np.array_equal(before.masks, after.masks)
        if after.description.style == "plain" and kind not in ("scene", "style"):
            masks = (before.masks, after.masks, before.accessory_masks, after.accessory_masks)
            outside = ~np.concatenate(masks).any(axis=0)
            shadows = differs(before.image, after.image)[outside].mean()
            assert shadows == 0 if kind != "noun" else shadows < 0.2


def test_an_instruction_names_the_new_value(world: World) -> None:
    source = rng(14)
    for _ in range(60):
        edit = sample_edit(world, source, kind="colour")
        old, new = edit.before.description.figures, edit.after.description.figures
        index = next(k for k in range(len(old)) if old[k] != new[k])
        colour = new[index].entity.colour
        assert edit.instruction.endswith("natural" if colour == NATURAL else colour) or (
            colour == NATURAL and edit.instruction.endswith("its own colours")
        )
        if len(old) == 2:
            assert noun_phrase(world, old[index].entity) in edit.instruction


def test_an_edit_without_a_possible_start_is_made_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All colours of this cat but that of the one beside it are held out."""
    cats = [e for e in world.entities(False) if (e.noun, e.art) == ("cat", SETS[0])]
    one, other = cats[:2]
    monkeypatch.setattr(world, "entities", lambda held_out=False: (one, other))
    figures = tuple(Figure(entity=entity, accessory=NOTHING) for entity in (one, other))
    stuck = replace(describe(), figures=figures, relation="next to")
    drawn = [stuck, describe("cat", one.colour)]
    monkeypatch.setattr(world, "sample_description", lambda *_: drawn.pop(0))
    edit = sample_edit(world, rng(), kind="colour")
    assert edit.after.description == describe("cat", one.colour)


def test_what_is_held_out_covers_everything_and_leaves_it_to_training(world: World) -> None:
    held_out, trained = world.entities(True), world.entities(False)
    assert {*held_out}.isdisjoint(trained)
    assert {*held_out, *trained} == {*world.entities(None)}
    assert 0.1 < len(held_out) / len(world.entities(None)) < 0.2
    for names, attribute in ((COLOURS, "colour"), (SETS, "art")):
        assert {getattr(entity, attribute) for entity in held_out} == set(names)
    assert {entity.noun for entity in trained} == set(NOUNS)
    for relation in RELATIONS:
        for split in (True, False):
            seen = [a[:2] for a in world.arrangements(split) if a[2] == relation]
            assert {noun for pair in seen for noun in pair} == set(NOUNS)


def test_training_never_shows_or_mentions_what_is_held_out(world: World) -> None:
    """A noun without a word for its colour may be said of all its entities, as "the fox"."""
    source = rng(15)
    for _ in range(500):
        assert world.may_be_trained_on(world.sample_description(source))
    for _ in range(300):
        for figure in read_figures(sample_sentence(world, source)):
            entity = figure.entity
            assert not world.is_held_out(entity) or entity.colour == NATURAL
    for _ in range(60):
        for figure in read_figures(" ".join(texts_of(sample_document(world, source)))):
            entity = figure.entity
            assert not world.is_held_out(entity) or entity.colour == NATURAL


def test_evaluation_shows_nothing_but_what_is_held_out(world: World) -> None:
    source = rng(16)
    for _ in range(200):
        description = world.sample_description(source, held_out=True)
        assert all(world.is_held_out(figure.entity) for figure in description.figures)
        if description.relation is not None:
            first, second = (figure.entity.noun for figure in description.figures)
            assert world.is_held_out_arrangement(first, second, description.relation)
    for kind in KINDS:
        after = sample_edit(world, source, held_out=True, kind=kind).after.description
        assert all(world.is_held_out(figure.entity) for figure in after.figures)


def test_sampling_reaches_everything(world: World) -> None:
    source = rng(17)
    drawn = [world.sample_description(source) for _ in range(2500)]
    every = [figure for description in drawn for figure in description.figures]
    assert {figure.entity for figure in every} == set(world.entities(False))
    assert {figure.accessory for figure in every} == set(world.accessories)
    assert {description.scene for description in drawn} == set(SCENES)
    assert {description.style for description in drawn} == set(STYLES)
    assert {description.relation for description in drawn} == {None, *RELATIONS}
    assert all(len(world.sample_description(source, figures=2).figures) == 2 for _ in range(20))


def test_documents_have_images_between_their_texts(world: World) -> None:
    source = rng(18)
    for _ in range(40):
        document = sample_document(world, source)
        texts = texts_of(document)
        assert len(document.parts) - len(texts) in (2, 3)
        assert all(text.strip() for text in texts)


def test_a_world_without_accessories_and_names_of_sets() -> None:
    sprites = {noun: star(3 + n, 0.5, (200, 120, 40)) for n, noun in enumerate(NOUNS)}
    bare = World(Art(sets={"": sprites}, accessories={}, unseen={}))
    source = rng(19)
    for _ in range(60):
        rendering = sample_rendering(bare, source)
        assert all(figure.accessory == NOTHING for figure in rendering.description.figures)
        text = write_caption(bare, rendering.description, source).text
        assert "  " not in text
        assert not set(text.split()) & {"wearing", "with", *SETS}
        assert sample_edit(bare, source).kind != "accessory"
        sample_sentence(bare, source)


def test_a_noun_that_means_something_else() -> None:
    sprites = {noun: star(4, 0.5, (200, 120, 40)) for noun in (*NOUNS, "blue whale")}
    with pytest.raises(DataError, match=r"blue whale\.png: captions have the word 'blue'"):
        World(Art(sets={"": sprites}, accessories={}, unseen={}))


def test_too_few_nouns_to_hold_some_out() -> None:
    sprites = {noun: star(4, 0.5, (200, 120, 40)) for noun in NOUNS[:2]}
    with pytest.raises(DataError, match="at least ten nouns"):
        World(Art(sets={"": sprites}, accessories={}, unseen={}))

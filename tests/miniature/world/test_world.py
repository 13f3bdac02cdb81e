"""The drawn world: the same from the same seed, and true to what is said of it."""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from kosmosg.prompts.prompt import parse_prompt
from miniature.world import (
    ACCESSORIES,
    COLOURS,
    RELATIONS,
    SCENES,
    SHAPES,
    STYLES,
    TEXTURES,
    Description,
    Entity,
    Figure,
    Rendering,
    contact_sheet,
    entity_crops,
    is_held_out,
    labels,
    may_be_trained_on,
    noun_phrase,
    portrait,
    render,
    sample_description,
    sample_document,
    sample_edit,
    sample_rendering,
    sample_sentence,
    write_caption,
)
from miniature.world.description import arrangements, entities, is_held_out_arrangement
from miniature.world.edits import KINDS
from miniature.world.figures import BODY

FIGURE = re.compile(
    rf"(?P<colour>{'|'.join(COLOURS)}) (?:(?P<texture>{'|'.join(TEXTURES)}) )?"
    rf"(?P<shape>{'|'.join(SHAPES)})"
    rf"(?: (?:wearing|with) (?:a )?(?P<accessory>{'|'.join(ACCESSORIES[1:])}))?"
)
RELATION_WORDS = {"next": 0, "beside": 0, "and": 0, "above": 1, "over": 1, "top": 2, "standing": 2}
SCENE_WORDS = {"woods": "forest", "water": "sea"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def describe(
    shape: str = "ball", colour: str = "red", texture: str = "plain", accessory: str = "none"
) -> Description:
    """One figure in the studio."""
    entity = Entity(shape=shape, colour=colour, texture=texture)
    figure = Figure(entity=entity, accessory=accessory)
    return Description(figures=(figure,), relation=None, scene="studio", style="picture")


def read_figures(text: str) -> list[Figure]:
    return [
        Figure(
            entity=Entity(
                shape=match["shape"], colour=match["colour"], texture=match["texture"] or "plain"
            ),
            accessory=match["accessory"] or "none",
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
    styles = set(words) & set(STYLES[1:])
    assert len(scenes) <= 1
    assert len(styles) <= 1
    return Description(
        figures=tuple(read_figures(text)),
        relation=next(iter(relations), None),
        scene=next((scene for scene in SCENES if scene in scenes), "studio"),
        style=next(iter(styles), "picture"),
    )


def differs(one: Rendering, other: Rendering) -> np.ndarray:
    return (one.image != other.image).any(axis=2)


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = sample_rendering(rng(3)), sample_rendering(rng(3))
    assert one.description == other.description
    assert one.image.tobytes() == other.image.tobytes()
    assert one.masks.tobytes() == other.masks.tobytes()
    assert one.image.tobytes() != sample_rendering(rng(4)).image.tobytes()
    edit, again = sample_edit(rng(3)), sample_edit(rng(3))
    assert edit.instruction == again.instruction
    assert edit.after.image.tobytes() == again.after.image.tobytes()
    document, copy = sample_document(rng(3)), sample_document(rng(3))
    assert document.prompt == copy.prompt
    assert all(map(np.array_equal, document.images, copy.images))
    assert sample_sentence(rng(3)) == sample_sentence(rng(3))


def test_drawing_takes_the_same_share_of_chance_whatever_is_drawn() -> None:
    plain, city = rng(), rng()
    render(describe(), plain)
    render(replace(describe(accessory="hat"), scene="city", style="watercolour"), city)
    assert plain.random() == city.random()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("scene", SCENES)
def test_every_shape_and_accessory_can_be_drawn_everywhere(scene: str, style: str) -> None:
    for number, (shape, accessory) in enumerate(product(SHAPES, ACCESSORIES)):
        if number % len(STYLES) != STYLES.index(style):
            continue
        description = replace(describe(shape, accessory=accessory), scene=scene, style=style)
        rendering = render(description, rng(number))
        assert rendering.image.shape == (64, 64, 3)
        assert rendering.image.dtype == np.uint8
        assert rendering.image.std() > 10
        assert bool((rendering.image != rendering.undressed).any()) == (accessory != "none")


def test_all_entities_look_different() -> None:
    images = {portrait(entity, rng(1)).image.tobytes() for entity in entities(None)}
    assert len(images) == len(SHAPES) * len(COLOURS) * len(TEXTURES)


def test_figures_are_whole_and_apart() -> None:
    source = rng(5)
    for _ in range(150):
        rendering = sample_rendering(source, held_out=None)
        for mask in rendering.masks:
            assert 200 < (mask > 127).sum() < 1300
            assert not mask[[0, -1]].any()
            assert not mask[:, [0, -1]].any()
        assert rendering.masks.sum(axis=0, dtype=int).max() <= 256  # rounding where two touch
        assert not rendering.accessory_masks[:, [0, -1]].any()


@pytest.mark.parametrize("relation", RELATIONS)
def test_figures_stand_as_the_relation_says(relation: str) -> None:
    pair = (describe("cat").figures[0], describe("star", "blue").figures[0])
    description = replace(describe(), figures=pair, relation=relation)
    for seed in range(20):
        first, second = render(description, rng(seed)).masks > 0
        top, bottom = np.flatnonzero(second.any(axis=1))[[0, -1]]
        lowest = np.flatnonzero(first.any(axis=1))[-1]
        if relation == "next to":
            assert abs(lowest - bottom) <= 4
            assert not (first.any(axis=0) & second.any(axis=0)).any()
        else:
            assert (3 <= top - lowest <= 7) if relation == "above" else (-2 <= top - lowest <= 1)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_mask_covers_the_body_and_nothing_else(colour: str) -> None:
    rendering = render(describe(colour=colour, accessory="hat"), rng(2))
    other = render(
        describe(colour="green" if colour != "green" else "red", accessory="hat"), rng(2)
    )
    mask, hat = rendering.masks[0], rendering.accessory_masks[0]
    changed = differs(rendering, other)
    assert not changed[mask == 0].any()
    assert changed[(mask == 255) & (hat == 0)].all()
    seen = rendering.undressed[mask == 255].astype(int)
    of_its_colour = (np.abs(seen - BODY[colour]).max(axis=1) < 12).mean()
    assert of_its_colour > 0.8  # the rest is the outline


def test_an_accessory_changes_only_what_its_mask_covers() -> None:
    for accessory in ACCESSORIES[1:]:
        for shape in SHAPES:
            rendering = render(describe(shape, accessory=accessory), rng(6))
            changed = (rendering.image != rendering.undressed).any(axis=2)
            assert changed.sum() > 40
            assert not changed[rendering.accessory_masks[0] == 0].any()
            assert np.array_equal(rendering.undressed, render(describe(shape), rng(6)).image)


def test_crops_are_square_and_hold_the_entity() -> None:
    source = rng(7)
    for _ in range(60):
        rendering = sample_rendering(source)
        for mask, crop in zip(rendering.masks, entity_crops(rendering), strict=True):
            left, top, right, bottom = crop.box
            assert right - left == bottom - top <= 64
            assert min(crop.box) >= 0
            assert max(crop.box) <= 64
            outside = mask.copy()
            outside[top:bottom, left:right] = 0
            assert not outside.any()
            assert crop.crop.shape == crop.masked.shape == (64, 64, 3)


def test_a_masked_crop_is_the_entity_on_white() -> None:
    rendering = render(replace(describe("heart", "blue", "striped"), scene="forest"), rng(1))
    crop = entity_crops(rendering)[0]
    assert (crop.masked[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert (crop.crop[[0, 0, -1, -1], [0, -1, 0, -1]] != 255).any()
    assert np.array_equal(crop.crop[32, 32], crop.masked[32, 32])


def test_crops_show_accessories_only_if_asked() -> None:
    bare, worn = (render(describe("cat", accessory=name), rng(8)) for name in ("none", "crown"))
    expected = entity_crops(bare)[0]
    assert np.array_equal(entity_crops(worn)[0].masked, expected.masked)
    dressed = entity_crops(worn, dressed=True)[0]
    left, top, right, bottom = dressed.box
    assert top < expected.box[1]
    outside = worn.masks[0] | worn.accessory_masks[0]
    outside[top:bottom, left:right] = 0
    assert not outside.any()
    assert not np.array_equal(dressed.masked, expected.masked)


def test_captions_can_be_read_back() -> None:
    source = rng(9)
    for _ in range(400):
        description = sample_description(source, held_out=None)
        for _ in range(2):
            assert read_caption(write_caption(description, source).text) == description


def test_every_scene_and_style_and_accessory_has_its_words() -> None:
    source = rng(10)
    for scene, style, accessory in product(SCENES, STYLES, ACCESSORIES):
        description = replace(describe(accessory=accessory), scene=scene, style=style)
        assert read_caption(write_caption(description, source).text) == description


def test_spans_match_the_text() -> None:
    source = rng(11)
    for _ in range(200):
        description = sample_description(source)
        caption = write_caption(description, source)
        for figure, span in zip(description.figures, caption.spans, strict=True):
            phrase = caption.text[span.start : span.end]
            entity = figure.entity
            assert phrase in (noun_phrase(entity), noun_phrase(entity, say_plain=True))
            assert caption.text[span.article : span.start] in ("", "a ", "an ")
            vowel = phrase[0] in "aeiou"
            assert span.article == span.start or (span.start - span.article == 3) == vowel


def test_markers_stand_behind_entities_or_in_their_place() -> None:
    source = rng(12)
    caption = write_caption(describe("star"), source)
    while caption.text != "a red star":
        caption = write_caption(describe("star"), source)
    assert caption.with_markers() == "a red star <i>"
    assert caption.with_markers(words=False) == "<i>"
    for _ in range(50):
        description = sample_description(source)
        caption = write_caption(description, source)
        parse_prompt(caption.with_markers(), len(description.figures))
        without = parse_prompt(caption.with_markers(words=False), len(description.figures))
        assert not read_figures(without.text)
        assert caption.with_markers().replace(" <i>", "") == caption.text


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_changes_only_what_it_speaks_of(kind: str) -> None:
    source = rng(13)
    for _ in range(25):
        edit = sample_edit(source, kind=kind)
        before, after = edit.before, edit.after
        assert differs(before, after).any()
        assert read_caption(edit.caption.text) == before.description
        assert may_be_trained_on(before.description)
        assert may_be_trained_on(after.description)
        one, other = labels(before.description), labels(after.description)
        if len(before.description.figures) == 1:
            differing = [name for name in vars(one) if vars(one)[name] != vars(other)[name]]
            assert differing == [kind]
        if kind != "shape":
            assert np.array_equal(before.masks, after.masks)
        if after.description.style == "picture" and kind not in ("scene", "style"):
            masks = (before.masks, after.masks, before.accessory_masks, after.accessory_masks)
            assert not differs(before, after)[~np.concatenate(masks).any(axis=0)].any()
        if kind == "scene" and after.description.style == "picture":
            inside = (after.masks == 255).any(axis=0)
            assert not differs(before, after)[inside].any()


def test_an_instruction_names_the_new_value() -> None:
    source = rng(14)
    for _ in range(60):
        edit = sample_edit(source, kind="colour")
        old, new = edit.before.description.figures, edit.after.description.figures
        index = next(k for k in range(len(old)) if old[k] != new[k])
        assert edit.instruction.endswith(f" {new[index].entity.colour}")
        if len(old) == 2:
            assert noun_phrase(old[index].entity) in edit.instruction


def test_an_edit_without_a_possible_start_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain red ball is held out, and two equal balls are never shown."""
    pair = tuple(describe("ball", "red", texture).figures[0] for texture in ("striped", "dotted"))
    stuck = replace(describe(), figures=pair, relation="above")
    assert may_be_trained_on(stuck)
    drawn = [stuck, describe("cat", "blue", "striped")]
    monkeypatch.setattr("miniature.world.edits.sample_description", lambda *_: drawn.pop(0))
    edit = sample_edit(rng(), kind="texture")
    assert edit.after.description == describe("cat", "blue", "striped")


def test_what_is_held_out_covers_every_attribute_and_leaves_it_to_training() -> None:
    held_out, trained = entities(True), entities(False)
    assert len(held_out) == 28
    assert len(held_out) + len(trained) == 192
    for names, attribute in ((SHAPES, "shape"), (COLOURS, "colour"), (TEXTURES, "texture")):
        assert {getattr(entity, attribute) for entity in held_out} == set(names)
    for first, second in (("shape", "colour"), ("shape", "texture"), ("colour", "texture")):
        pairs = {(getattr(e, first), getattr(e, second)) for e in trained}
        assert pairs == {(getattr(e, first), getattr(e, second)) for e in entities(None)}
    for relation in RELATIONS:
        for split in (True, False):
            seen = [a[:2] for a in arrangements(split) if a[2] == relation]
            assert {shape for pair in seen for shape in pair} == set(SHAPES)


def test_training_never_shows_or_mentions_what_is_held_out() -> None:
    source = rng(15)
    for _ in range(500):
        assert may_be_trained_on(sample_description(source))
    for _ in range(300):
        for figure in read_figures(sample_sentence(source)):
            assert not is_held_out(figure.entity)
    for _ in range(60):
        for figure in read_figures(sample_document(source).prompt.text):
            assert not is_held_out(figure.entity)


def test_evaluation_shows_nothing_but_what_is_held_out() -> None:
    source = rng(16)
    for _ in range(200):
        description = sample_description(source, held_out=True)
        assert all(is_held_out(figure.entity) for figure in description.figures)
        if description.relation is not None:
            first, second = (figure.entity.shape for figure in description.figures)
            assert is_held_out_arrangement(first, second, description.relation)
    for kind in KINDS:
        after = sample_edit(source, held_out=True, kind=kind).after.description
        assert all(is_held_out(figure.entity) for figure in after.figures)


def test_sampling_reaches_everything() -> None:
    source = rng(17)
    drawn = [sample_description(source) for _ in range(1500)]
    every = [figure for description in drawn for figure in description.figures]
    assert {figure.entity for figure in every} == set(entities(False))
    assert {figure.accessory for figure in every} == set(ACCESSORIES)
    assert {description.scene for description in drawn} == set(SCENES)
    assert {description.style for description in drawn} == set(STYLES)
    assert {description.relation for description in drawn} == {None, *RELATIONS}
    assert all(len(sample_description(source, figures=2).figures) == 2 for _ in range(20))


def test_documents_hold_one_image_per_marker() -> None:
    source = rng(18)
    for _ in range(40):
        document = sample_document(source)
        assert document.prompt.image_count == len(document.images) in (2, 3)
        assert document.prompt.text.strip() == document.prompt.text


def test_labels_are_positions_in_the_lists_of_words() -> None:
    description = replace(describe("cat", "blue", "dotted", "scarf"), scene="sea", style="neon")
    truth = labels(description)
    assert SHAPES[truth.shape] == "cat"
    assert COLOURS[truth.colour] == "blue"
    assert TEXTURES[truth.texture] == "dotted"
    assert ACCESSORIES[truth.accessory] == "scarf"
    assert (SCENES[truth.scene], STYLES[truth.style]) == ("sea", "neon")


def test_a_contact_sheet_has_a_cell_for_every_rendering() -> None:
    images = [sample_rendering(rng(seed)).image for seed in range(5)]
    assert contact_sheet(images, columns=3).size == (768, 512)
    captioned = contact_sheet(images, columns=3, captions=["a caption"] * 5)
    assert captioned.size == (768, 540)
    assert captioned.getpixel((0, 0)) == tuple(images[0][0, 0])

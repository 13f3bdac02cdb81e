"""What was asked for, compared with what is read from an image: pure functions.

A score says how many things were right of how many, under a name; a name that does not apply to
a case is left out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations

from kosmosg.evaluation.metrics import Estimate, wilson
from miniature.evaluation.probe_labels import (
    ENTITY,
    FIGURE,
    SIDE_BY_SIDE,
    STACKED,
    Reading,
    get,
)
from miniature.evaluation.prompts import WEARING, Case
from miniature.world import Description, Figure

Scores = Mapping[str, tuple[int, int]]
Score = Callable[[Case, Reading], Scores]


def score_caption(case: Case, reading: Reading) -> Scores:
    """Count the attributes that a caption names, style apart.

    An entity without a word for its colour has its own, one without a word for its set is of the
    first, and an image without a word for its scene was taken in the studio, so these count always;
    an accessory only if one is asked for. ``all``
    asks for every attribute, the number of figures and their relation, and nothing worn that was
    not asked for.
    """
    wanted = case.wanted
    pairs = assign(wanted.figures, reading.figures)
    scores = {name: (sum(_agree(name, *pair) for pair in pairs), len(pairs)) for name in ENTITY}
    worn = [pair for pair in pairs if pair[0].accessory != "none"]
    if worn:
        scores["accessory"] = (sum(_agree("accessory", *pair) for pair in worn), len(worn))
    scores["scene"] = _once(reading.scene == wanted.scene)
    attributes = [*scores.values()]
    right, total = (sum(column) for column in zip(*attributes, strict=True))
    whole = (
        right == total and has_figures(FIGURE, wanted, reading) and has_relation(wanted, reading)
    )
    return {
        "attributes": (right, total),
        "all": _once(whole),
        **scores,
        "number": _once(len(reading.figures) == len(wanted.figures)),
        "style": _once(reading.style == wanted.style),
        **(
            {"both entities": _once(has_figures(ENTITY, wanted, reading))}
            if wanted.relation
            else {}
        ),
        **_relation(wanted, reading),
    }


def score_scene(case: Case, reading: Reading) -> Scores:
    """Ask for the entity of the input image in the scene of the prompt."""
    entity = has_figures(ENTITY, case.wanted, reading)
    scene = reading.scene == case.wanted.scene
    pairs = assign(case.wanted.figures, reading.figures)
    return {
        "entity": _once(entity),
        "scene": _once(scene),
        "entity and scene": _once(entity and scene),
        **{name: _once(all(_agree(name, *pair) for pair in pairs)) for name in ENTITY},
    }


def score_noun(case: Case, reading: Reading) -> Scores:
    """Ask for the noun of the input image, in whatever colours and art, in the scene."""
    scene = reading.scene == case.wanted.scene
    return {"noun": _once(has_figures(("noun",), case.wanted, reading)), "scene": _once(scene)}


def score_two(case: Case, reading: Reading) -> Scores:
    """Ask for both entities, wherever they stand; relation and scene are told apart."""
    pairs = assign(case.wanted.figures, reading.figures)
    each = [all(_agree(name, *pair) for name in ENTITY) for pair in pairs]
    return {
        "both entities": _once(has_figures(ENTITY, case.wanted, reading)),
        "each entity": (sum(each), len(each)),
        "scene": _once(reading.scene == case.wanted.scene),
        **_relation(case.wanted, reading),
    }


def score_change(case: Case, reading: Reading) -> Scores:
    """Ask for the change, and for the rest of the entities as they were.

    A change of scene or style is in the image as a whole, and every entity must be kept; the
    style and the scene around a changed entity are not judged.
    """
    wanted = case.wanted
    attribute = "accessory" if case.kind == WEARING else case.kind
    if attribute in FIGURE:
        changed = has_figures((attribute,), wanted, reading)
    else:
        changed = getattr(reading, attribute) == getattr(wanted, attribute)
    kept = has_figures([name for name in FIGURE if name != attribute], wanted, reading)
    # Not merely both: for each of them, two figures may be paired in another way.
    right = changed and has_figures(FIGURE, wanted, reading)
    return {
        "right": _once(right),
        "changed": _once(changed),
        "kept": _once(kept),
        case.kind: _once(right),
    }


def has_figures(names: Sequence[str], wanted: Description, reading: Reading) -> bool:
    """Tell whether there are as many figures as wanted and they agree in some attributes.

    Two figures may have changed places.
    """
    if len(wanted.figures) != len(reading.figures):
        return False
    orders = permutations(reading.figures)
    pairings = (zip(wanted.figures, order, strict=True) for order in orders)
    return any(all(_agree(name, *pair) for pair in pairs for name in names) for pairs in pairings)


def has_relation(wanted: Description, reading: Reading) -> bool:
    """Tell whether two figures stand as wanted; "above" and "on top of" are not told apart."""
    if wanted.relation is None:
        return reading.arrangement is None
    if reading.arrangement != (SIDE_BY_SIDE if wanted.relation == "next to" else STACKED):
        return False
    # "Next to" says nothing of left and right; else the first figure must be the upper one.
    in_order = tuple(seen for _, seen in assign(wanted.figures, reading.figures))
    return reading.arrangement == SIDE_BY_SIDE or in_order == reading.figures


def assign(wanted: Sequence[Figure], seen: Sequence[Figure]) -> list[tuple[Figure, Figure | None]]:
    """Pair wanted figures with seen ones so that most attributes agree.

    Of equally good ways the one in the given order; without enough figures, some have none.
    """
    places = [*seen, *[None] * (len(wanted) - len(seen))]
    orders = permutations(places, len(wanted))
    pairings = [[*zip(wanted, order, strict=True)] for order in orders]
    return max(pairings, key=lambda pairs: sum(_agree(n, *pair) for pair in pairs for n in FIGURE))


def summarise(scores: Iterable[Scores]) -> Iterable[tuple[str, Estimate]]:
    """Add up the scores of many cases, name by name in the order in which they appear."""
    collected: dict[str, list[tuple[int, int]]] = {}
    for each in scores:
        for name, counts in each.items():
            collected.setdefault(name, []).append(counts)
    for name, counts in collected.items():
        right, total = (sum(column) for column in zip(*counts, strict=True))
        yield name, wilson(right, total, samples=len(counts))


def is_right(counts: tuple[int, int]) -> bool:
    """Tell whether nothing was wrong."""
    return counts[0] == counts[1]


def _agree(name: str, wanted: Figure, seen: Figure | None) -> bool:
    if seen is None:
        return False
    return get(wanted, name) == get(seen, name)


def _once(right: bool) -> tuple[int, int]:
    return int(right), 1


def _relation(wanted: Description, reading: Reading) -> Scores:
    return {} if wanted.relation is None else {"relation": _once(has_relation(wanted, reading))}

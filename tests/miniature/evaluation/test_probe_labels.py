"""Readings: what is to be seen, and how a classifier spells it."""

import numpy as np
import pytest

from miniature.evaluation.probe_labels import (
    ABSENT,
    SIDE_BY_SIDE,
    STACKED,
    from_labels,
    make_heads,
    to_labels,
    true_reading,
)
from miniature.world import (
    RELATIONS,
    Description,
    Entity,
    Figure,
    World,
    render,
    sample_rendering,
)

CAT, SUN = (
    Figure(entity=Entity(noun=noun, colour="blue", art="flat"), accessory="none")
    for noun in ("cat", "sun")
)


def test_labels_are_understood_again(world: World) -> None:
    heads = make_heads(world)
    rng = np.random.default_rng(0)
    for _ in range(60):
        reading = true_reading(sample_rendering(world, rng, held_out=None))
        labels = to_labels(reading, heads)
        silent = {head for head, label in zip(heads, labels, strict=True) if label == ABSENT}
        assert silent == (
            set()
            if len(reading.figures) == 2
            else {"arrangement"} | {head for head in heads if head.startswith("second")}
        )
        # What a silent head says does not count.
        assert (
            from_labels(
                [
                    1 if label == ABSENT and head.startswith("second") else max(label, 0)
                    for head, label in zip(heads, labels, strict=True)
                ],
                heads,
            )
            == reading
        )


@pytest.mark.parametrize("relation", RELATIONS)
def test_two_figures_are_read_from_left_to_right_or_from_above(world: World, relation: str) -> None:
    description = Description(figures=(CAT, SUN), relation=relation, scene="snow", style="plain")
    orders = set()
    for seed in range(12):
        rendering = render(world, description, np.random.default_rng(seed))
        reading = true_reading(rendering)
        first = reading.figures.index(CAT)
        rows, columns = (np.flatnonzero(rendering.masks[0].any(axis=axis)) for axis in (1, 0))
        if relation == "next to":
            assert reading.arrangement == SIDE_BY_SIDE
            assert (columns.mean() < 64) == (first == 0)
        else:
            assert reading.arrangement == STACKED
            assert first == 0
            assert rows[0] < np.flatnonzero(rendering.masks[1].any(axis=1))[0]
        orders.add(first)
    assert orders == ({0, 1} if relation == "next to" else {0})

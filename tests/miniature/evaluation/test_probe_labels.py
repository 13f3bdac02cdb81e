"""Readings: what is to be seen, and how a classifier spells it."""

import numpy as np
import pytest

from miniature.evaluation.probe_labels import (
    ABSENT,
    HEADS,
    SIDE_BY_SIDE,
    STACKED,
    from_labels,
    to_labels,
    true_reading,
)
from miniature.world import Description, Entity, Figure, render, sample_rendering

CAT, STAR = (
    Figure(entity=Entity(shape=shape, colour="blue", texture="plain"), accessory="none")
    for shape in ("cat", "star")
)


def test_labels_are_understood_again() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        reading = true_reading(sample_rendering(rng, held_out=None))
        labels = to_labels(reading)
        silent = {head for head, label in zip(HEADS, labels, strict=True) if label == ABSENT}
        assert silent == (
            set()
            if len(reading.figures) == 2
            else {"arrangement"} | {head for head in HEADS if head.startswith("second")}
        )
        # What a silent head says does not count.
        assert (
            from_labels(
                [
                    2 if label == ABSENT and head.startswith("second") else max(label, 0)
                    for head, label in zip(HEADS, labels, strict=True)
                ]
            )
            == reading
        )


@pytest.mark.parametrize("relation", ["next to", "above", "on top of"])
def test_two_figures_are_read_from_left_to_right_or_from_above(relation: str) -> None:
    description = Description(figures=(CAT, STAR), relation=relation, scene="snow", style="picture")
    orders = set()
    for seed in range(12):
        rendering = render(description, np.random.default_rng(seed))
        reading = true_reading(rendering)
        first = reading.figures.index(CAT)
        rows, columns = (np.flatnonzero(rendering.masks[0].any(axis=axis)) for axis in (1, 0))
        if relation == "next to":
            assert reading.arrangement == SIDE_BY_SIDE
            assert (columns.mean() < 32) == (first == 0)
        else:
            assert reading.arrangement == STACKED
            assert first == 0
            assert rows[0] < np.flatnonzero(rendering.masks[1].any(axis=1))[0]
        orders.add(first)
    assert orders == ({0, 1} if relation == "next to" else {0})

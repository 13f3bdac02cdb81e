"""Cores and GPUs for each step."""

from typing import Any

import pytest

from kosmosg.curation.engine import Workers, share_out
from kosmosg.curation.steps import PipelineStep
from kosmosg.errors import CurationError


def nothing() -> Any:
    raise AssertionError("never made")


MODELS = tuple(PipelineStep(name=name, make=nothing, model=True) for name in ("caption", "masks"))
STEPS = (PipelineStep(name="read", make=nothing), *MODELS, PipelineStep(name="cut", make=nothing))


def test_shares_without_gpus() -> None:
    shares = share_out(STEPS, 2, 0, {})
    assert set(shares) == {"read", "caption", "masks", "cut"}
    cores = shares["caption"].cpus
    assert shares["caption"] == shares["masks"] == Workers(count=1, cpus=cores)
    assert shares["read"] == shares["cut"] == Workers(count=None, cpus=cores)
    assert 3 * cores <= 2  # both models, and one task beside them
    assert share_out(STEPS, 16, 0, {})["caption"].cpus == 1
    assert share_out(STEPS[:1], 4, 0, {}) == {"read": Workers(count=None, cpus=1.0)}


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_every_gpu_is_divided_among_the_models(gpus: int) -> None:
    shares = share_out(STEPS, 64, gpus, {})
    assert shares["caption"] == shares["masks"] == Workers(count=gpus, cpus=1, gpus=0.5)
    assert shares["read"].gpus == 0


def test_overrides() -> None:
    overrides: dict[str, tuple[int, float | None]] = {
        "caption": (5, 1.0),
        "masks": (2, 0.5),
        "read": (3, None),
    }
    shares = share_out(STEPS, 64, 6, overrides)
    assert shares["caption"] == Workers(count=5, cpus=1, gpus=1)
    assert shares["masks"] == Workers(count=2, cpus=1, gpus=0.5)
    assert (shares["read"].count, shares["read"].gpus) == (3, 0)
    assert share_out(STEPS, 64, 4, {"masks": (1, None)})["caption"].count == 4


@pytest.mark.parametrize("cpus", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("gpus", [0, 1, 3, 8])
def test_there_is_room_for_all_workers_and_a_task(cpus: int, gpus: int) -> None:
    """Otherwise Ray would wait for ever."""
    for overrides in ({}, {"caption": (9, 0.0)}):
        shares = share_out(STEPS, cpus, gpus, overrides)
        models = [shares[step.name] for step in MODELS]
        cores = sum((each.count or 0) * each.cpus for each in models)
        assert 0 < cores + shares["read"].cpus <= cpus
        assert sum((each.count or 0) * each.gpus for each in models) <= gpus


@pytest.mark.parametrize(
    ("gpus", "overrides", "message"),
    [
        (5, {"caption": (5, 1.0), "masks": (1, 1.0)}, "want 6 GPUs, and there are 5"),
        (0, {"caption": (1, 1.0)}, "want 1 GPUs, and there are 0"),
        (8, {"read": (2, 1.0)}, "Step read has no model"),
    ],
)
def test_overrides_that_cannot_be_met(gpus: int, overrides: Any, message: str) -> None:
    with pytest.raises(CurationError, match=message):
        share_out(STEPS, 64, gpus, overrides)

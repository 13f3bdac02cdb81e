"""The stream of images: one sequence, shared out exactly and resumable."""

import json
from itertools import islice

import pytest

from kosmosg.errors import DataError
from miniature.world import World
from miniature.world.stream import RenderingStream, StreamedRendering


def contents(samples: list[StreamedRendering]) -> list[tuple[int, bytes]]:
    return [(sample.position, sample.rendering.image.tobytes()) for sample in samples]


def test_processes_share_one_sequence(world: World) -> None:
    alone = contents([*islice(RenderingStream(world, 3), 6)])
    assert [position for position, _ in alone] == [*range(6)]
    assert len({image for _, image in alone}) == 6
    for rank in range(2):
        assert contents([*islice(RenderingStream(world, 3, rank, 2), 3)]) == alone[rank::2]
    assert contents([*islice(RenderingStream(world, 4), 6)]) != alone


def test_a_resumed_stream_goes_on_where_it_stood(world: World) -> None:
    stream = RenderingStream(world, 3, 1, 2)
    next(stream)
    state = json.loads(json.dumps(stream.state_dict()))
    assert state["position"] == 3
    resumed = RenderingStream(world, 3, 1, 2)
    resumed.load_state_dict(state)
    assert contents([*islice(resumed, 3)]) == contents([*islice(stream, 3)])


@pytest.mark.parametrize("other", [(4,), (3, 0, 2)])
def test_another_stream_is_not_resumed(world: World, other: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="Start it with the same"):
        RenderingStream(world, *other).load_state_dict(RenderingStream(world, 3).state_dict())


def test_everything_is_shown(world: World) -> None:
    """Also what the stages of KOSMOS-G do not see: the probe has to read it."""
    seen = [
        world.may_be_trained_on(sample.rendering.description)
        for sample in islice(RenderingStream(world, 0), 40)
    ]
    assert {*seen} == {True, False}


@pytest.mark.parametrize(("seed", "rank", "world_size"), [(-1, 0, 1), (0, 1, 1), (0, -1, 2)])
def test_numbers_that_do_not_fit(world: World, seed: int, rank: int, world_size: int) -> None:
    with pytest.raises(DataError, match="rank"):
        RenderingStream(world, seed, rank, world_size)

"""An endless stream of drawn images, resumable at any of them without drawing those before."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kosmosg.errors import DataError
from miniature.world.description import STYLES, choose
from miniature.world.render import Rendering, render
from miniature.world.world import World

DRAW_IMAGE = 4  # first word of the seeds; those of ``data.walk`` end at 3


@dataclass(frozen=True, kw_only=True)
class StreamedRendering:
    """An image and its place in the stream, which is a seed for what is done to it later."""

    position: int
    rendering: Rendering


class RenderingStream:
    """One sequence of images, whatever the number of processes that share it.

    Process ``rank`` draws the positions ``rank``, ``rank + world_size``, …; the generator of a
    image comes from the seed and its position alone. Unlike elsewhere in the world, all styles
    are equally frequent: who learns to read images has to know each of them.

    Args:
        world: Has entities and sprites.
        seed: Decides all images.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        DataError: If the numbers do not fit together.
    """

    def __init__(self, world: World, seed: int, rank: int = 0, world_size: int = 1):
        if seed < 0 or not 0 <= rank < world_size:
            raise DataError(
                f"Seed {seed}, rank {rank} of {world_size}: wanted a seed of at least 0 and a "
                "rank from 0 to below the number of processes."
            )
        self._world = world
        self._identity = {"seed": seed, "rank": rank, "world_size": world_size}
        self._position = rank

    def __iter__(self) -> Iterator[StreamedRendering]:
        return self

    def __next__(self) -> StreamedRendering:
        position = self._position
        rng = np.random.default_rng((DRAW_IMAGE, self._identity["seed"], position))
        description = self._world.sample_description(rng, held_out=None)  # all that there is
        rendering = render(self._world, replace(description, style=choose(STYLES, rng)), rng)
        self._position += self._identity["world_size"]
        return StreamedRendering(position=position, rendering=rendering)

    @property
    def skipped(self) -> dict[str, dict[str, int]]:
        """Nothing: every image can be drawn."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands; ``position`` is that of the next image."""
        return {**self._identity, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another stream stood, with the same images in the same order.

        Raises:
            DataError: If that stream was another one.
        """
        found = {key: state.get(key) for key in self._identity}
        if found != self._identity:
            raise DataError(
                f"The images cannot be resumed: the saved run had {found}, this one has "
                f"{self._identity}. Start it with the same ones."
            )
        self._position = state["position"]

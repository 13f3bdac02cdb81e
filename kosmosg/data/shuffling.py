"""The order in which one source is read: epoch after epoch, shuffled, and resumable anywhere.

In each epoch the shards are shuffled, and in each shard its samples; both orders are functions of
the seed, the epoch and the shard. So three numbers say where a walk stands, and
nothing but the current shard is held in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.schema import Sample, Shard
from kosmosg.errors import DataError

# The first word of every seed: what is drawn with it.
DRAW_SHARDS, DRAW_SAMPLES, DRAW_SOURCES, DRAW_SAMPLE = range(4)


class WalkState(NamedTuple):
    """Where a walk stands.

    Attributes:
        epoch: How often everything has been read.
        shard: Which shard of the epoch's order is being read; -1 before the first.
        sample: How many samples of it have been given.
    """

    epoch: int
    shard: int
    sample: int


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a sample lies."""

    shard: Shard
    number: int  # of the sample in its shard, from 0
    entry: Any

    @property
    def where(self) -> str:
        """The place in words."""
        return f"{self.shard.name}, sample {self.number}"

    def read(self, generator: np.random.Generator) -> Sample:
        """Read the sample.

        Raises:
            BadSample: If it cannot be used.
        """
        return self.shard.read(self.entry, generator)


class ShardWalk:
    """An endless walk over the samples of one source.

    Args:
        name: What to call the source in messages.
        shards: Its files.
        seed: Of the run, and the source's place in it.
    """

    def __init__(self, name: str, shards: Sequence[Shard], seed: tuple[int, ...]):
        self._name = name
        self._shards = shards
        self._seed = seed
        self._entered: list[tuple[str, tuple[BadSample, ...]]] = []
        self.state = WalkState(epoch=0, shard=-1, sample=0)

    @property
    def state(self) -> WalkState:
        """Where the walk stands; set it to go on from there."""
        return WalkState(epoch=self._epoch, shard=self._shard, sample=self._sample)

    @state.setter
    def state(self, state: WalkState) -> None:
        self._epoch, self._shard, self._sample = state
        self._shard_order = self._shuffle_shards()
        self._entered.clear()
        self._open_shard()

    def advance(self) -> Address:
        """Take one step.

        Raises:
            DataError: If there is no sample in any shard.
        """
        tried = 0
        while self._sample >= len(self._entries):
            # The one good shard may be first in this epoch and last in the next.
            if tried >= 2 * len(self._shards) - 1:
                raise self._nothing_left()
            self._enter_next_shard()
            tried += 1
        number = int(self._sample_order[self._sample])
        self._sample += 1
        return Address(shard=self._current, number=number, entry=self._entries[number])

    def take_entered(self) -> list[tuple[str, tuple[BadSample, ...]]]:
        """Return the shards entered since the last call: their names and what is wrong."""
        entered, self._entered = self._entered, []
        return entered

    def _enter_next_shard(self) -> None:
        self._shard += 1
        self._sample = 0
        if self._shard >= len(self._shards):
            self._epoch += 1
            self._shard = 0
            self._shard_order = self._shuffle_shards()
        damage = self._open_shard()
        self._entered.append((self._current.name, damage))
        if (following := self._shard + 1) < len(self._shards):
            self._shards[int(self._shard_order[following])].expect()

    def _open_shard(self) -> tuple[BadSample, ...]:
        """Look through the current shard; a walk that has not begun has none."""
        if self._shard < 0:
            self._entries, self._sample_order = (), np.empty(0, dtype=np.int64)
            return ()
        index = int(self._shard_order[self._shard])
        self._current = self._shards[index]
        scan = self._current.scan()
        self._entries = scan.entries
        generator = np.random.default_rng((DRAW_SAMPLES, *self._seed, self._epoch, index))
        self._sample_order = generator.permutation(len(scan.entries))
        return scan.damage

    def _shuffle_shards(self) -> np.ndarray:
        generator = np.random.default_rng((DRAW_SHARDS, *self._seed, self._epoch))
        return generator.permutation(len(self._shards))

    def _nothing_left(self) -> DataError:
        found = {
            f"{name}: {fault.detail}" for name, damage in self._entered for fault in damage
        } or {"they are all empty"}
        return DataError(
            f"There is no sample in any of the {len(self._shards)} shards of {self._name} "
            f"({'; '.join(sorted(found)[:3])}). Check the files, or leave the source out."
        )

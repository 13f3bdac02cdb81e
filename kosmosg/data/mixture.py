"""Several sources → one endless stream, the same in every run and resumable at any sample.

The authors' loader draws each step's source from an unseeded generator on every process. Here a
run has *one* sequence of samples, whatever its number of processes:

    position   0         1       2         3       4     …
    source     captions  edits   captions  edits   edits …     drawn by weight, from the seed
    sample     c₀        e₀      c₁        e₁      e₂    …     each source in its own shuffled order

Process ``rank`` of ``world_size`` reads the positions ``rank``, ``rank + world_size``, … and walks
past the others without reading them. So processes share every epoch out without overlap or gap,
and a step's global batch does not depend on their number as long as no sample is bad: a bad one
is skipped, and only its own process moves on. All random choices at a position (pairs, dropped
words, crops) come from a generator of that position. Sources are told apart by their places in the
mixture: where their files lie, or how that is written, decides nothing.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from kosmosg.data.bad_samples import BadSample, BadSampleLimit, SkipLog
from kosmosg.data.schema import Sample, Shard
from kosmosg.data.shuffling import DRAW_SAMPLE, DRAW_SOURCES, Address, ShardWalk, WalkState
from kosmosg.errors import DataError

T = TypeVar("T")
_CHOICES = 1024  # sources drawn at once
_READ_AHEAD = 4  # samples on their way for each thread


@dataclass(frozen=True, kw_only=True)
class Source(Generic[T]):
    """One data set in the mixture.

    Attributes:
        name: What to call it in messages.
        shards: Its files.
        weight: How often it is read, compared with the other sources.
        prepare: Makes of a sample what the stream yields; may raise ``BadSample``. Called from
            several threads at once if the mixture has some.
    """

    name: str
    shards: Sequence[Shard]
    weight: float
    prepare: Callable[[Sample, np.random.Generator], T]


class ReadAhead:
    """Threads that read samples before they are asked for; the streams are the same without.

    Attributes:
        pool: The threads, or nothing: a sample is then read when it is asked for.
        samples: How many each stream has on their way.

    Args:
        threads: How many; 0 for none.
        streams: That share them.
    """

    def __init__(self, threads: int = 0, streams: int = 1):
        self.pool = ThreadPoolExecutor(threads, "read-ahead") if threads else None
        self.samples = max(1, threads * _READ_AHEAD // streams)

    def close(self) -> None:
        """End the threads, without what they have not begun to read."""
        if self.pool:
            self.pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class _Draw(Generic[T]):
    """A sample on its way, and where everything stands once it has been taken."""

    source: int
    address: Address
    load: Callable[[], T | BadSample]
    entered: list[tuple[int, str, tuple[BadSample, ...]]]
    after: tuple[int, tuple[WalkState, ...]]


class Mixture(Generic[T]):
    """The endless stream of one process.

    Args:
        sources: What is mixed; those of weight 0 are left out, and keep their places.
        seed: Decides the order and every random choice.
        rank: Number of this process.
        world_size: Number of processes.
        limit: When bad samples stop the run, for each source.
        ahead: Threads that read ahead, which other streams may share; none by default.

    Raises:
        DataError: If the arguments do not fit together; while running, if the limit is exceeded.
    """

    def __init__(
        self,
        sources: Iterable[Source[T]],
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        limit: BadSampleLimit | None = None,
        ahead: ReadAhead | None = None,
    ):
        placed = [(place, each) for place, each in enumerate(sources) if each.weight != 0]
        self._sources = [source for _, source in placed]
        _check_sources(self._sources)
        if seed < 0 or not 0 <= rank < world_size:
            raise DataError(
                f"Seed {seed}, rank {rank} of {world_size}: wanted a seed of at least 0 and a "
                "rank from 0 to below the number of processes."
            )
        self._identity = {"seed": seed, "rank": rank, "world_size": world_size}
        weights = np.array([source.weight for source in self._sources], dtype=np.float64)
        self._shares = weights / weights.sum()
        self._block: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))
        limit = limit or BadSampleLimit()
        names = [source.name for source in self._sources]
        self._logs = [SkipLog(name, limit) for name in names]
        self._shard_logs = [SkipLog(f"shards of {name}", limit) for name in names]
        self._walks = [
            ShardWalk(source.name, source.shards, (seed, place)) for place, source in placed
        ]
        self._position = 0
        self._taken = self._snapshot()
        self._readers = ahead or ReadAhead()
        self._ahead: deque[_Draw[T]] = deque()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while True:
            while len(self._ahead) < self._readers.samples:
                self._ahead.append(self._draw())
            draw = self._ahead.popleft()
            result = draw.load()
            self._taken = draw.after
            self._count_shards(draw)
            if not isinstance(result, BadSample):
                self._logs[draw.source].count_good()
                return result
            self._logs[draw.source].count_bad(result, draw.address.where)

    @property
    def given(self) -> dict[str, int]:
        """How many samples each source has given."""
        return self._by_source(lambda log, _: log.good)

    @property
    def skipped(self) -> dict[str, dict[str, int]]:
        """How many samples and shards of each source were skipped, by reason."""
        return self._by_source(lambda log, shard_log: dict(log.skipped + shard_log.skipped))

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, in plain numbers and texts; each process has its own."""
        position, walks = self._taken
        return {
            **self._identity,
            "position": position,
            "sources": [
                {
                    "files": len(source.shards),
                    "walk": list(walk),
                    "samples": log.state_dict(),
                    "shards": shard_log.state_dict(),
                }
                for source, walk, log, shard_log in zip(
                    self._sources, walks, self._logs, self._shard_logs, strict=True
                )
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another stream stood, with the same samples in the same order.

        Raises:
            DataError: If that stream had another seed, place among the processes, or files.
        """
        found = {key: state[key] for key in self._identity}
        found["files"] = [saved["files"] for saved in state["sources"]]
        wanted = {**self._identity, "files": [len(source.shards) for source in self._sources]}
        if found != wanted:
            raise DataError(
                f"The data cannot be resumed: the saved run had {found}, this one has {wanted}. "
                "Start it with the same ones."
            )
        self._ahead.clear()
        self._position = state["position"]
        for saved, walk, log, shard_log in zip(
            state["sources"], self._walks, self._logs, self._shard_logs, strict=True
        ):
            walk.state = WalkState(*saved["walk"])
            log.load_state_dict(saved["samples"])
            shard_log.load_state_dict(saved["shards"])
        self._taken = self._snapshot()

    def close(self) -> None:
        """End the threads that read ahead."""
        self._readers.close()

    def _draw(self) -> _Draw[T]:
        """Walk to this process's next position and begin to read what is there."""
        rank, world_size = self._identity["rank"], self._identity["world_size"]
        while True:
            position = self._position
            source = self._choose_source(position)
            address = self._walks[source].advance()
            self._position += 1
            if position % world_size == rank:
                break
        entered = [
            (number, name, damage)
            for number, walk in enumerate(self._walks)
            for name, damage in walk.take_entered()
        ]
        task = (self._sources[source], address, (DRAW_SAMPLE, self._identity["seed"], position))
        pool = self._readers.pool
        load = pool.submit(_load, *task).result if pool else partial(_load, *task)
        return _Draw(
            source=source, address=address, load=load, entered=entered, after=self._snapshot()
        )

    def _choose_source(self, position: int) -> int:
        block, place = divmod(position, _CHOICES)
        if self._block[0] != block:
            generator = np.random.default_rng((DRAW_SOURCES, self._identity["seed"], block))
            choices = generator.choice(len(self._shares), size=_CHOICES, p=self._shares)
            self._block = (block, choices)
        return int(self._block[1][place])

    def _count_shards(self, draw: _Draw[T]) -> None:
        for source, name, damage in draw.entered:
            log = self._shard_logs[source]
            if damage:
                log.count_bad(damage[0], name)
            else:
                log.count_good()

    def _by_source(self, count: Callable[[SkipLog, SkipLog], Any]) -> dict[str, Any]:
        logs = zip(self._sources, self._logs, self._shard_logs, strict=True)
        return {source.name: count(log, shard_log) for source, log, shard_log in logs}

    def _snapshot(self) -> tuple[int, tuple[WalkState, ...]]:
        return self._position, tuple(walk.state for walk in self._walks)


def _load(source: Source[T], address: Address, seed: tuple[int, ...]) -> T | BadSample:
    """Read and prepare one sample."""
    generator = np.random.default_rng(seed)
    try:
        return source.prepare(address.read(generator), generator)
    except BadSample as fault:
        return fault


def _check_sources(sources: Sequence[Source]) -> None:
    if not sources:
        raise DataError("There is nothing to mix: give at least one source a weight above 0.")
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise DataError(f"Two sources have the same name, among {names}. Name them differently.")
    for source in sources:
        if not (source.weight > 0 and math.isfinite(source.weight)):
            raise DataError(f"{source.name} has the weight {source.weight}; wanted 0 or more.")
        if not source.shards:
            raise DataError(f"{source.name} has no files. Add some, or give it the weight 0.")

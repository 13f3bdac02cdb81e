"""Shards without files, and sources of them, for what is decided by their order alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from kosmosg.data.bad_samples import BadSample, BadSampleLimit
from kosmosg.data.mixture import Mixture, Source
from kosmosg.data.preprocessing import Document
from kosmosg.data.schema import CaptionSample, Sample, Scan

NO_LIMIT = BadSampleLimit(share=0.99, minimum=1000)


@dataclass(frozen=True, kw_only=True)
class FakeShard:
    """Samples that are only numbered; a negative number is a bad one."""

    name: str
    numbers: Sequence[int]
    damage: tuple[BadSample, ...] = ()
    read_numbers: list[int] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return Path(self.name)

    def scan(self) -> Scan:
        return Scan(entries=self.numbers, damage=self.damage)

    def expect(self) -> None:
        """Nothing takes time here."""

    def read(self, entry: int, generator: np.random.Generator) -> Sample:
        self.read_numbers.append(entry)
        if entry < 0:
            raise BadSample("image", "torn")
        return CaptionSample(caption=f"{self.name} {entry}", image=None)


def shards(prefix: str, sizes: Sequence[int], bad: Sequence[int] = ()) -> tuple[FakeShard, ...]:
    """Make shards whose samples are numbered from 1 over all of them."""
    starts = np.cumsum([1, *sizes])
    return tuple(
        FakeShard(
            name=f"{prefix}{index}",
            numbers=[-n if n in bad else int(n) for n in range(start, start + size)],
        )
        for index, (start, size) in enumerate(zip(starts, sizes, strict=False))
    )


def label(sample: Sample, generator: np.random.Generator) -> tuple[str, float]:
    """Keep what was read and a number that was drawn for it."""
    assert isinstance(sample, CaptionSample)
    return sample.caption, float(generator.random())


def source(name: str, sizes: Sequence[int], weight: float = 1, bad: Sequence[int] = ()) -> Source:
    return Source(name=name, shards=shards(name, sizes, bad), weight=weight, prepare=label)


def three_sources(**changes) -> list[Source]:
    """Mix 2 : 2 : 1, with a few bad samples."""
    return [
        source("a", [3, 1, 4], 2, **changes),
        source("b", [5, 2], 2, **changes),
        source("c", [1], 1),
    ]


def take(mixture: Mixture, count: int) -> list:
    return list(islice(mixture, count))


def text_of(document: Document) -> list[int]:
    return [token for piece in document for token in piece.prompt.ids]

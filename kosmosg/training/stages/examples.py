"""What travels from the data to a stage: a prepared sample and the seed of its chance."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kosmosg.data.preprocessing import Prepared
from kosmosg.data.schema import Sample


@dataclass(frozen=True, kw_only=True)
class Example:
    """A prepared sample with the seed of the noise that a stage draws for it."""

    prepared: Prepared
    seed: int


def with_seed(
    prepare: Callable[[Sample, np.random.Generator], Prepared],
) -> Callable[[Sample, np.random.Generator], Example]:
    """Let every prepared sample carry a seed, drawn from the generator of its place."""

    def prepare_with_seed(sample: Sample, generator: np.random.Generator) -> Example:
        prepared = prepare(sample, generator)
        return Example(prepared=prepared, seed=int(generator.integers(2**62)))

    return prepare_with_seed

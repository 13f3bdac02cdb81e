"""The walk through the shards of one source."""

import pytest

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.mixture import Mixture, Source
from kosmosg.data.schema import Scan
from kosmosg.data.shuffling import ShardWalk
from kosmosg.errors import DataError
from tests.data.fakes import FakeShard, label


@pytest.mark.parametrize("damage", [(BadSample("broken-shard", "no such file"),), ()])
def test_a_source_without_any_sample_stops_the_run(damage: tuple[BadSample, ...]):
    empty = [FakeShard(name=f"x{n}", numbers=(), damage=damage) for n in range(3)]
    one = Source(name="a", shards=empty, weight=1, prepare=label)
    with pytest.raises(DataError, match="no sample in any of the 3 shards of a") as error:
        next(Mixture([one], seed=0))
    assert ("no such file" if damage else "they are all empty") in str(error.value)


def test_a_walk_looks_through_a_shard_when_it_comes_to_it():
    class Counted(FakeShard):
        def scan(self) -> Scan:
            scans.append(self.name)
            return super().scan()

    scans: list[str] = []
    files = [Counted(name=f"s{n}", numbers=[1, 2]) for n in range(4)]
    walk = ShardWalk("a", files, (0, 0))
    assert not scans
    for _ in range(5):
        walk.advance()
    assert len(scans) == 3
    entered = [name for name, _ in walk.take_entered()]
    assert entered == scans and not walk.take_entered()

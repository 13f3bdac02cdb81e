"""What the tests' processes import, once for all of them."""

from kosmosg.training import runs, scaffolding
from tests.training import killers, sharding, toy, uneven, world

__all__ = ["killers", "runs", "scaffolding", "sharding", "toy", "uneven", "world"]

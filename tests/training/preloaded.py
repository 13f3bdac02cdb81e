"""What the tests' processes import, once for all of them."""

from kosmosg.training import setup as runs
from miniature.pretraining import parts as scaffolding
from tests.training import killers, sharding, toy, uneven, world

__all__ = ["killers", "runs", "scaffolding", "sharding", "toy", "uneven", "world"]

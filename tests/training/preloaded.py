"""What the tests' processes import, once for all of them."""

from kosmosg.training import setup
from miniature.pretraining import parts
from tests.training import killers, sharding, toy, uneven, world

__all__ = ["killers", "parts", "setup", "sharding", "toy", "uneven", "world"]

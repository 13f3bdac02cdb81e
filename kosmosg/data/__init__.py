"""What the model is fed with."""

from kosmosg.data.batch import Batch, collate

__all__ = ["Batch", "collate"]

"""The networks: tensors in, tensors out."""

from kosmosg.models.aligner import AlignerNet, Reconstruction
from kosmosg.models.kosmosg import KosmosG, KosmosGConfig

__all__ = ["AlignerNet", "KosmosG", "KosmosGConfig", "Reconstruction"]

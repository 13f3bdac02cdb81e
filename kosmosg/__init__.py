"""KOSMOS-G: generating images in context with multimodal large language models.

``from kosmosg import KosmosGPipeline`` opens weights and draws; see README.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kosmosg.diffusion.control import Control
    from kosmosg.diffusion.init_image import InitImage
    from kosmosg.diffusion.lora import LoRA
    from kosmosg.pipeline import KosmosGPipeline

__all__ = ["Control", "InitImage", "KosmosGPipeline", "LoRA"]

_HOMES = {
    "Control": "kosmosg.diffusion.control",
    "InitImage": "kosmosg.diffusion.init_image",
    "KosmosGPipeline": "kosmosg.pipeline",
    "LoRA": "kosmosg.diffusion.lora",
}


def __getattr__(name: str) -> Any:
    # torch and diffusers take seconds to import; `kosmosg --help` needs neither.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kosmosg' has no attribute {name!r}")

"""KOSMOS-G: generating images in context with multimodal large language models.

``from kosmosg import KosmosGPipeline`` opens weights and draws; see README.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kosmosg.pipeline import KosmosGPipeline

__all__ = ["KosmosGPipeline"]


def __getattr__(name: str) -> Any:
    # torch and diffusers take seconds to import; `kosmosg --help` needs neither.
    if name == "KosmosGPipeline":
        from kosmosg.pipeline import KosmosGPipeline

        return KosmosGPipeline
    raise AttributeError(f"module 'kosmosg' has no attribute {name!r}")

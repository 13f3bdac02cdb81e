"""KOSMOS-G: generating images in context with multimodal large language models.

``from kosmosg import KosmosGPipeline`` opens weights and generates images; see README.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kosmosg.checkpoints.convert import convert_checkpoint
    from kosmosg.checkpoints.download import download
    from kosmosg.diffusion.control import Control
    from kosmosg.diffusion.init_image import InitImage
    from kosmosg.diffusion.lora import LoRA
    from kosmosg.diffusion.request import GenerationRequest
    from kosmosg.errors import KosmosGError
    from kosmosg.models.aligner import AlignerNet
    from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
    from kosmosg.pipeline import KosmosGOutput, KosmosGPipeline
    from kosmosg.prompts.tokenizer import KosmosGTokenizer

__version__ = "0.1.0"
__all__ = [
    "AlignerNet",
    "Control",
    "GenerationRequest",
    "InitImage",
    "KosmosG",
    "KosmosGConfig",
    "KosmosGError",
    "KosmosGOutput",
    "KosmosGPipeline",
    "KosmosGTokenizer",
    "LoRA",
    "__version__",
    "convert_checkpoint",
    "download",
]

# Where each public name comes from.
_EXPORTS = {
    "AlignerNet": "kosmosg.models.aligner",
    "Control": "kosmosg.diffusion.control",
    "GenerationRequest": "kosmosg.diffusion.request",
    "InitImage": "kosmosg.diffusion.init_image",
    "KosmosG": "kosmosg.models.kosmosg",
    "KosmosGConfig": "kosmosg.models.kosmosg",
    "KosmosGError": "kosmosg.errors",
    "KosmosGOutput": "kosmosg.pipeline",
    "KosmosGPipeline": "kosmosg.pipeline",
    "KosmosGTokenizer": "kosmosg.prompts.tokenizer",
    "LoRA": "kosmosg.diffusion.lora",
    "convert_checkpoint": "kosmosg.checkpoints.convert",
    "download": "kosmosg.checkpoints.download",
    # diffusers looks in a component's own library for what the component is derived from.
    "PreTrainedModel": "transformers",
    "PreTrainedTokenizer": "transformers",
}


def __getattr__(name: str) -> Any:
    # torch and diffusers take seconds to import; `kosmosg --help` needs neither.
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'kosmosg' has no attribute {name!r}")

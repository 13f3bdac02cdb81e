"""KOSMOS-G: generating images in context with multimodal large language models.

``from kosmosg import KosmosGPipeline`` opens weights and generates images; see README.md.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kosmosg.checkpoints.convert import convert_checkpoint
    from kosmosg.checkpoints.download import download
    from kosmosg.diffusion.control import Control
    from kosmosg.diffusion.init_image import InitImage
    from kosmosg.diffusion.lora import LoRA
    from kosmosg.diffusion.output import KosmosGOutput
    from kosmosg.diffusion.request import GenerationRequest
    from kosmosg.errors import KosmosGError
    from kosmosg.models.aligner import AlignerNet
    from kosmosg.models.kosmosg import KosmosG, KosmosGConfig
    from kosmosg.pipeline import KosmosGPipeline
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
    "KosmosGOutput": "kosmosg.diffusion.output",
    "KosmosGPipeline": "kosmosg.pipeline",
    "KosmosGTokenizer": "kosmosg.prompts.tokenizer",
    "LoRA": "kosmosg.diffusion.lora",
    "convert_checkpoint": "kosmosg.checkpoints.convert",
    "download": "kosmosg.checkpoints.download",
}


def __getattr__(name: str) -> Any:
    # torch and diffusers take seconds to import; `kosmosg --help` needs neither.
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'kosmosg' has no attribute {name!r}")


class _TellDiffusers:
    """Makes the pipeline known to diffusers when that gets its own ones.

    ``DiffusionPipeline.from_pretrained`` looks for the class and for the library of its components,
    which ``model_index.json`` names, among its own. Nothing is imported for it: torch takes
    seconds, and ``kosmosg --help`` needs none.
    """

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> None:
        """Take the occasion that diffusers loads its pipelines; others find the module."""
        if name == "diffusers.pipelines.pipeline_utils":
            cls.tell()
            sys.meta_path.remove(cls)

    @staticmethod
    def tell() -> None:
        """Name the library, and the class, which is imported when it is asked for."""
        diffusers: Any = sys.modules["diffusers"]
        diffusers.pipelines.kosmosg = sys.modules[__name__]
        kind, value = type(diffusers), property(lambda _: __getattr__("KosmosGPipeline"))
        diffusers.__class__ = type(kind.__name__, (kind,), {"KosmosGPipeline": value})


if "diffusers.pipelines.pipeline_utils" in sys.modules:
    _TellDiffusers.tell()
else:
    sys.meta_path.insert(0, _TellDiffusers)  # pyright: ignore[reportArgumentType]

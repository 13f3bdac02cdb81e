"""What Stable Diffusion v1.5 is used with, and KOSMOS-G's decoder too (paper, section 4.4).

LoRA (``lora.py``), ControlNet (``control.py``, with its maps in ``control_maps.py``) and images
to start from (``init_image.py``). Everything is put together for one request and taken apart after
it; the decoder's networks are never changed.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from kosmosg.diffusion.control import Control
from kosmosg.diffusion.init_image import InitImage
from kosmosg.diffusion.lora import LoRA
from kosmosg.prompts.images import identify

__all__ = ["Control", "InitImage", "LoRA", "Techniques"]


@dataclass(frozen=True, kw_only=True)
class Techniques:
    """What a request asks for besides prompt and numbers."""

    lora: LoRA | None = None
    control: Control | None = None
    init: InitImage | None = None

    @property
    def guides(self) -> dict[str, Image.Image]:
        """The images that fix the proportions of the result, by their inputs' names."""
        named = {"control_image": self.control, "init_image": self.init}
        return {name: guide.image for name, guide in named.items() if guide is not None}

    def recipe(self) -> dict[str, Any]:
        """What makes an image again, for the metadata of its file; files by SHA-256."""
        found: dict[str, Any] = {}
        if self.lora:
            with Path(self.lora.file).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found |= {"lora": f"sha256:{digest}", "lora_scale": self.lora.scale}
        if self.control:
            control = self.control
            found |= {"control_type": control.kind, "control_scale": control.scale}
            found |= {"control_start": control.start, "control_end": control.end}
            found |= {"control_preprocess": control.preprocess}
            found |= {"control_image": identify(control.image)}
        if self.init:
            found |= {"init_image": identify(self.init.image)}
            found |= {"prompt_strength": self.init.strength}
            if self.init.mask:
                found |= {"init_mask": identify(self.init.mask)}
        return found

"""The safety checker of Stable Diffusion, asked about finished images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessorPil

from kosmosg.checkpoints.loading import REMEDY, load_component
from kosmosg.errors import WeightsError


@dataclass(frozen=True, kw_only=True)
class SafetyChecker:
    """Stable Diffusion's checker and the processor that prepares images for it."""

    model: StableDiffusionSafetyChecker
    processor: Any

    @classmethod
    def from_pretrained(cls, directory: Path, *, dtype: torch.dtype) -> "SafetyChecker | None":
        """Load the checker of a weights directory, or ``None`` if it has none.

        Raises:
            WeightsError: If it is incomplete or damaged.
        """
        if not (directory / "safety_checker").is_dir():
            return None
        model = load_component(
            StableDiffusionSafetyChecker, directory / "safety_checker", dtype=dtype
        )
        file = directory / "feature_extractor" / "preprocessor_config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            processor = CLIPImageProcessorPil.from_dict(config)
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(
                f"feature_extractor: {file} cannot be read ({error}). {REMEDY}"
            ) from error
        return cls(model=model, processor=processor)

    def save_pretrained(self, directory: Path) -> None:
        """Write both parts into a weights directory."""
        self.model.save_pretrained(directory / "safety_checker")
        self.processor.save_pretrained(directory / "feature_extractor")

    def flagged(self, images: Sequence[Image.Image]) -> list[bool]:
        """Tell which images the checker takes for unsafe."""
        parameter = next(self.model.parameters())
        pixels = self.processor(list(images), return_tensors="pt").pixel_values
        # The checker blackens what it flags; it gets blanks, since only its verdict is wanted.
        blanks = np.zeros((len(images), 1, 1, 3), dtype=np.float32)
        with torch.inference_mode():
            _, flags = self.model(
                images=blanks, clip_input=pixels.to(parameter.device, parameter.dtype)
            )
        return [bool(flag) for flag in flags]

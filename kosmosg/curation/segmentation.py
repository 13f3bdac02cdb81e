"""Where in an image an entity is (paper, section 3.1: CLIPSeg)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16
from PIL import Image

from kosmosg.curation.images import images_of
from kosmosg.curation.models import load_model
from kosmosg.curation.records import Outcome, Record

Logits = Float16[np.ndarray, "side side"]
Segmenter = Callable[[Sequence[Image.Image], Sequence[Sequence[str]]], list[tuple[Logits, ...]]]
PAIRS = 64  # of an image and an entity, at once


class ClipSegSegmenter:
    """CLIPSeg, which looks for a text in an image."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any):
        self._model, self._processor, self._tokenizer = model, processor, tokenizer

    @classmethod
    def load(cls, name: str) -> "ClipSegSegmenter":
        """Open a model by folder or Hub id.

        Raises:
            WeightsError: If it cannot be had.
        """
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPSegForImageSegmentation

        return cls(
            *load_model(CLIPSegForImageSegmentation, name, AutoImageProcessor, AutoTokenizer)
        )

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]
    ) -> list[tuple[Logits, ...]]:
        """Look for some texts in each image.

        Returns:
            For each text, how much the places of its image look like it: logits of a
            probability, on the model's own grid (352 × 352), whatever the image's size.
        """
        pixels = self._processor(list(images), return_tensors="pt")["pixel_values"]
        words = self._tokenizer(
            [text for listed in texts for text in listed],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        owners = torch.tensor([number for number, listed in enumerate(texts) for _ in listed])
        logits = torch.cat(
            [
                self._look(pixels[owners[first : first + PAIRS]], words, first)
                for first in range(0, len(owners), PAIRS)
            ]
        )
        found = iter(logits.cpu().numpy().astype(np.float16))
        return [tuple(next(found) for _ in listed) for listed in texts]

    def _look(self, pixels: torch.Tensor, words: Any, first: int) -> torch.Tensor:
        device, rows = self._model.device, slice(first, first + len(pixels))
        return self._model(
            pixel_values=pixels.to(device, self._model.dtype),
            input_ids=words["input_ids"][rows].to(device),
            attention_mask=words["attention_mask"][rows].to(device),
        ).logits.float()


class FindMasks:
    """Looks for the entities of each record in its image."""

    name = "masks"

    def __init__(self, segmenter: Segmenter, batch: int):
        self.batch = batch
        self._segmenter = segmenter

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """Look at the images of some records."""
        found = self._segmenter(images_of(records), [record.tags for record in records])
        return [
            replace(record, logits=logits) for record, logits in zip(records, found, strict=True)
        ]

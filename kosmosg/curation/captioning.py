"""Captions from images (paper, section 3.1: BLIP-2 with OPT-6.7B)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from kosmosg.curation.images import images_of
from kosmosg.curation.models import load_model
from kosmosg.curation.records import Outcome, Record, Rejected, one_by_one

if TYPE_CHECKING:
    from transformers import GenerationConfig

Captioner = Callable[[Sequence[Image.Image]], list[str]]


class Blip2Captioner:
    """BLIP-2, which says what it sees without being asked."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any, tokens: int):
        self._model, self._processor, self._tokenizer = model, processor, tokenizer
        self._generation = greedy(model.language_model, tokenizer, tokens)

    @classmethod
    def load(cls, name: str, tokens: int) -> "Blip2Captioner":
        """Open a model.

        Args:
            name: A folder or Hub id.
            tokens: Longest caption; the authors' was the library's default of 20.

        Raises:
            WeightsError: If it cannot be had.
        """
        # Here, since it takes seconds: workers that only read or cut do without.
        from transformers import AutoImageProcessor, AutoTokenizer, Blip2ForConditionalGeneration

        model, processor, tokenizer = load_model(
            Blip2ForConditionalGeneration, name, AutoImageProcessor, AutoTokenizer
        )
        return cls(model, processor, tokenizer, tokens)

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        """Say what is in each image."""
        pixels = self._processor(list(images), return_tensors="pt")["pixel_values"]
        pixels = pixels.to(self._model.device, self._model.dtype)
        ids = self._model.generate(pixels, generation_config=self._generation)
        # What it was given comes first: places for the image, and the begin of a sentence.
        said = ids[:, self._model.config.num_query_tokens + 1 :]
        return self._tokenizer.batch_decode(said, skip_special_tokens=True)


class CaptionImages:
    """Gives each record a caption."""

    name = "caption"

    def __init__(self, captioner: Captioner, batch: int):
        self.batch = batch
        self._captioner = captioner

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """Caption the images of some records."""
        captions = iter(self._captioner(images_of(records)))
        return one_by_one(lambda record: _with_caption(record, next(captions)), records)


def greedy(model: Any, tokenizer: Any, tokens: int) -> "GenerationConfig":
    """Return the settings by which a model always says the same.

    Those that come with a model are passed over, but for its ends of a text: they go by chance,
    or keep it from repeating words, which is what it is to do here.
    """
    from transformers import GenerationConfig

    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    padding = tokenizer.pad_token_id
    if padding is None:
        padding = ends[0] if isinstance(ends, list) else ends
    return GenerationConfig(
        max_new_tokens=tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=ends,
        pad_token_id=padding,
    )


def _with_caption(record: Record, caption: str) -> Record:
    caption = " ".join(caption.split())
    if not caption:
        raise Rejected("no-caption", "the captioner said nothing")
    return replace(record, caption=caption)

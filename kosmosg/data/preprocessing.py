"""A sample → what a training stage reads: token ids, input pixels, target pixels.

Paper, sections 2.1 to 2.3, and the authors' readers. For stages 2 and 3 every sample becomes one
prompt:

    caption        <s> caption                                 target: its image (stage 2: none)
    edit           <s> [caption] IMG(before) instruction       target: the image after the edit
    compositional  <s> text IMG text IMG … text                target: the whole image
    subject        <s> IMG IMG … prompt                        target: what was made of them

For stage 1 it becomes a document of sentences and images (``Document``), to be packed.

No prompt ends in ``</s>``: the paper has one there, but the authors' collator takes it off again,
so that their model never saw it in stages 2 and 3, and never sees it when it draws.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64
from PIL import Image

from kosmosg.data.bad_samples import BadSample
from kosmosg.data.entities import draw_prompt
from kosmosg.data.options import DROP_CAPTION, EntityOptions, check_probability
from kosmosg.data.schema import (
    CaptionSample,
    CompositionalSample,
    EditSample,
    InterleavedDocument,
    Sample,
    SubjectSample,
)
from kosmosg.errors import ImageError
from kosmosg.prompts.images import clip_pixels, target_pixels
from kosmosg.prompts.prompt import Prompt
from kosmosg.prompts.tokenizer import KosmosGTokenizer, TokenizedPrompt

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One sample as a stage reads it.

    Attributes:
        prompt: Token ids and image slots.
        pixels: Its input images in order of appearance, for CLIP.
        target: The image to be generated, in [-1, 1], or none.
        caption: The whole caption as text, which stage 2 shows to CLIP's text encoder; empty
            where there is none.
    """

    prompt: TokenizedPrompt
    pixels: tuple[Float64[np.ndarray, "3 size size"], ...]
    target: Float[np.ndarray, "3 target_size target_size"] | None
    caption: str


@dataclass(frozen=True, kw_only=True)
class CaptionLimits:
    """The longest captions that are taken, without ``<s>`` and ``</s>``.

    Stage 2 of the authors takes 85 tokens, and 75 of CLIP.

    Attributes:
        tokens: Tokens of the language model.
        clip_tokens: Tokens of CLIP.
        count_clip_tokens: Counts them; without it they are not limited.
    """

    tokens: int = 128
    clip_tokens: int = 75
    count_clip_tokens: Callable[[str], int] | None = None


@dataclass(frozen=True, kw_only=True)
class PromptPreparer:
    """Makes prompts for stages 2 and 3.

    Attributes:
        tokenizer: The model's.
        image_slots: Vectors for each image (64).
        image_size: Side of the input images (224).
        target_size: Side of the target (512), or None for stage 2, which draws nothing.
        limits: Longest captions.
        max_tokens: Longest prompt, images included; the authors' tokens per sample.
        drop_caption: Probability that an edit's caption is left out.
        entities: How entities vary.
        captions_only: Take nothing but captions, as stage 2 does.

    Raises:
        DataError: If ``drop_caption`` is no probability.
    """

    tokenizer: KosmosGTokenizer
    image_slots: int
    image_size: int
    target_size: int | None
    limits: CaptionLimits = CaptionLimits()
    max_tokens: int = 2048
    drop_caption: float = DROP_CAPTION
    entities: EntityOptions = field(default_factory=EntityOptions)
    captions_only: bool = False

    def __post_init__(self) -> None:
        check_probability("--drop-caption", self.drop_caption)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Prepared:
        """Prepare one sample.

        Raises:
            BadSample: If it is too long, lacks its image, cannot be shown as chosen, or is of
                another kind.
        """
        match sample:
            case CaptionSample():
                check_caption(sample.caption, self.tokenizer, self.limits)
                prompt, images = Prompt(segments=(sample.caption,)), ()
                target = sample.image
            case _ if self.captions_only:
                kind = type(sample).__name__
                raise BadSample("wrong-kind", f"stage 2 reads captions, no {kind}")
            case EditSample():
                caption = "" if generator.random() < self.drop_caption else sample.caption
                prompt, images = Prompt(segments=(caption, sample.instruction)), (sample.before,)
                target = sample.after
            case CompositionalSample():
                prompt, images = draw_prompt(sample, self.entities, generator)
                target = sample.target
            case SubjectSample():
                segments = (*("",) * len(sample.images), sample.prompt)
                prompt, images = Prompt(segments=segments), sample.images
                target = sample.target
            case InterleavedDocument():
                raise BadSample("wrong-kind", "interleaved documents are read in stage 1 only")
        tokens = self.tokenizer.tokenize_prompt(prompt, self.image_slots)
        if len(tokens.ids) > self.max_tokens:
            detail = f"{len(tokens.ids)} tokens, wanted at most {self.max_tokens}"
            raise BadSample("prompt-too-long", detail)
        return Prepared(
            prompt=tokens,
            pixels=tuple(_pixels(clip_pixels, image, self.image_size) for image in images),
            target=self._target(target),
            caption="" if isinstance(sample, SubjectSample) else sample.caption,
        )

    def _target(
        self, image: Image.Image | None
    ) -> Float[np.ndarray, "3 target_size target_size"] | None:
        if self.target_size is None:
            return None
        if image is None:
            raise BadSample("missing-part", "no image to be generated")
        return _pixels(target_pixels, image, self.target_size).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A sentence or an image of a document, without ``<s>``."""

    prompt: TokenizedPrompt
    pixels: tuple[Float64[np.ndarray, "3 size size"], ...] = ()


Document = tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class DocumentPreparer:
    """Makes documents for stage 1; of a caption and its image, the image comes first.

    Attributes:
        tokenizer: The model's.
        image_slots: Vectors for each image (64).
        image_size: Side of the images (224).
        limits: Longest captions.
    """

    tokenizer: KosmosGTokenizer
    image_slots: int
    image_size: int
    limits: CaptionLimits = CaptionLimits()

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Document:
        """Prepare one sample; there is no chance in it.

        Raises:
            BadSample: If it is too long, has no token in it, or is neither a document nor a
                caption.
        """
        match sample:
            case InterleavedDocument():
                parts = sample.parts
            case CaptionSample():
                check_caption(sample.caption, self.tokenizer, self.limits)
                parts = (*((sample.image,) if sample.image else ()), sample.caption)
            case _:
                kind = type(sample).__name__
                raise BadSample("wrong-kind", f"stage 1 reads documents and captions, no {kind}")
        document = tuple(piece for part in parts for piece in self._pieces(part))
        if not document:
            raise BadSample("empty-document", f"{len(parts)} parts and no token")
        return document

    def _pieces(self, part: str | Image.Image) -> list[Piece]:
        if isinstance(part, str):
            sentences = (self._encode(sentence) for sentence in _SENTENCE_END.split(part))
            return [Piece(prompt=sentence) for sentence in sentences if sentence.ids]
        pixels = _pixels(clip_pixels, part, self.image_size)
        return [Piece(prompt=self._encode("", ""), pixels=(pixels,))]

    def _encode(self, *segments: str) -> TokenizedPrompt:
        encoded = self.tokenizer.tokenize_prompt(Prompt(segments=segments), self.image_slots)
        return TokenizedPrompt(ids=encoded.ids[1:], image_mask=encoded.image_mask[1:])


def check_caption(caption: str, tokenizer: KosmosGTokenizer, limits: CaptionLimits) -> None:
    """Refuse a caption that is too long.

    Raises:
        BadSample: If it has more tokens than the limits allow.
    """
    # One of them is <s>.
    tokens = len(tokenizer.tokenize_prompt(Prompt(segments=(caption,)), image_slots=0).ids) - 1
    if tokens > limits.tokens:
        raise BadSample("caption-too-long", f"{tokens} tokens, wanted at most {limits.tokens}")
    if limits.count_clip_tokens is None:
        return
    tokens = limits.count_clip_tokens(caption)
    if tokens > limits.clip_tokens:
        detail = f"{tokens} tokens of CLIP, wanted at most {limits.clip_tokens}"
        raise BadSample("caption-too-long", detail)


def _pixels(
    transform: Callable[[Image.Image, int], np.ndarray], image: Image.Image, size: int
) -> np.ndarray:
    try:
        return transform(image, size)
    except ImageError as error:
        raise BadSample("image", str(error)) from error

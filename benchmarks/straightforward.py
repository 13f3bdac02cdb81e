"""Conditioning without any of what the pipeline saves: the baseline of its rows.

Two passes, one for the prompt and one for what guidance leads away from, at every call; and the
logits of each, as when the language model is called as a whole.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kosmosg.pipeline import KosmosGPipeline
from kosmosg.prompts.batch import Batch, collate
from kosmosg.prompts.images import clip_pixels, to_rgb
from kosmosg.prompts.prompt import Prompt, parse_prompt, parse_text
from kosmosg.prompts.tokenizer import TokenizedPrompt


def condition_straightforwardly(
    pipeline: KosmosGPipeline, prompt: str, images: Sequence, negative_prompt: str
) -> tuple[Tensor, Tensor]:
    """Compute what ``KosmosGPipeline.encode_prompt`` does, in two whole passes."""
    model = pipeline.kosmosg
    pixels = [clip_pixels(to_rgb(image), model.image_size) for image in images]
    with torch.inference_mode():
        return (
            one_pass(pipeline, parse_prompt(prompt, len(images)), pixels),
            # An empty text is the start symbol alone, which is the null condition.
            one_pass(pipeline, parse_text(negative_prompt)),
        )


def one_pass(pipeline: KosmosGPipeline, prompt: Prompt, pixels: Sequence = ()) -> Tensor:
    """Compute the features, the logits from them, which nobody reads, and the condition."""
    model = pipeline.kosmosg
    batch = place(pipeline, collate([tokens_of(pipeline, prompt)], pixels))
    features = model.features(batch)
    F.linear(features, model.kosmos2.text_model.model.embed_tokens.weight)
    return model.aligner(features, batch.padding_mask)


def condition_in_one_batch(
    pipeline: KosmosGPipeline, prompt: str, images: Sequence, negative_prompt: str
) -> tuple[Tensor, Tensor]:
    """Compute both conditions in one padded batch, without logits."""
    model = pipeline.kosmosg
    pixels = [clip_pixels(to_rgb(image), model.image_size) for image in images]
    parsed = (parse_prompt(prompt, len(images)), parse_text(negative_prompt))
    tokens = [tokens_of(pipeline, each) for each in parsed]
    with torch.inference_mode():
        both = model(place(pipeline, collate(tokens, pixels)))
    return both[:1], both[1:]


def tokens_of(pipeline: KosmosGPipeline, prompt: Prompt) -> TokenizedPrompt:
    """Lay out a prompt as the pipeline does."""
    return pipeline.conditioner.tokenizer.encode(prompt, pipeline.kosmosg.image_slots)


def place(pipeline: KosmosGPipeline, batch: Batch) -> Batch:
    """Move a batch to the model's device and precision."""
    return batch.to(pipeline.kosmosg.device, pipeline.kosmosg.dtype)

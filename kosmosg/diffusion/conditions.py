"""Words, images or embeddings of a request → conditions, and what metadata tell of them."""

import hashlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kosmosg.diffusion.request import GenerationRequest
from kosmosg.errors import PromptError
from kosmosg.models.encoder import PromptEncoder, check_embeds, pair, pair_negatives
from kosmosg.prompts.images import identify

Told = list[dict[str, Any]]  # by the names of the request, for each prompt


def find_conditions(
    request: GenerationRequest, encoder: PromptEncoder
) -> tuple[Float[Tensor, "prompts queries dim"], Told]:
    """Find the condition of every prompt.

    Args:
        request: With prompts and their images, or ``prompt_embeds``.
        encoder: Makes conditions of prompts.

    Raises:
        PromptError: If markers and images do not fit, a prompt is too long, or embeddings are not
            of this width or stand beside what they stand in for.
    """
    weights = request.image_weights
    if request.prompt_embeds is not None:
        if not (request.prompt is None and request.images is None and weights is None):
            raise PromptError(
                "prompt_embeds stand in place of prompt, images and image_weights. Give either."
            )
        dim = encoder.kosmosg.config.aligner_config.dim
        embeds = check_embeds("prompt_embeds", request.prompt_embeds, dim)
        return embeds, [{"prompt_embeds": identify_tensor(row)} for row in embeds]
    if request.prompt is None:
        raise PromptError("Give a prompt, or prompt_embeds in its place.")
    prompts, shown = pair(request.prompt, request.images)
    told: Told = [{"prompt": text} for text in prompts]
    for row, each in zip(told, shown, strict=True):
        row |= {"images": list(map(identify, each))} if each else {}
        row |= {} if weights is None else {"image_weights": list(map(float, weights))}
    return encoder.conditions(prompts, shown, weights), told


def find_negatives(
    request: GenerationRequest,
    encoder: PromptEncoder,
    condition: Float[Tensor, "prompts queries dim"],
) -> tuple[Float[Tensor, "prompts queries dim"], Told]:
    """Find what guidance leads away from, for every prompt.

    Raises:
        PromptError: If there are neither one nor as many as prompts, or embeddings do not have the
            conditions' shape or stand beside what they stand in for.
    """
    embeds = request.negative_prompt_embeds
    if embeds is None:
        texts = pair_negatives(request.negative_prompt, len(condition))
        return encoder.negatives(texts), [{"negative_prompt": text} for text in texts]
    if request.negative_prompt is not None:
        raise PromptError("negative_prompt_embeds stand in place of negative_prompt. Give one.")
    rows, _, dim = condition.shape
    embeds = check_embeds("negative_prompt_embeds", embeds, dim, rows)
    if embeds.shape != condition.shape:
        raise PromptError(
            f"negative_prompt_embeds have shape {tuple(embeds.shape)}, the prompt's "
            f"{tuple(condition.shape)}. Give as many tokens."
        )
    return embeds, [{"negative_prompt_embeds": identify_tensor(row)} for row in embeds]


def identify_tensor(tensor: Tensor) -> str:
    """Name a tensor in metadata, by the digest of its values."""
    values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return f"values-sha256:{hashlib.sha256(values.tobytes()).hexdigest()}"

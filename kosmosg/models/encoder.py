"""Prompts and pictures → conditions: everything up to what the U-Net takes in place of CLIP's."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kosmosg.errors import PromptError, SettingError, WeightsError
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.batch import collate
from kosmosg.prompts.images import clip_pixels, to_rgb
from kosmosg.prompts.prompt import Prompt, parse_prompt, parse_text
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.checks import check_number

Images = Image.Image | Sequence[Image.Image]
Texts = str | Sequence[str]


class Conditioner:
    """Tokenizer and KOSMOS-G, with the null condition kept."""

    def __init__(self, kosmosg: KosmosG, tokenizer: KosmosGTokenizer):
        self.kosmosg = kosmosg
        self.tokenizer = tokenizer
        self._null: Tensor | None = None

    def to(self, device: str | torch.device) -> None:
        """Move the networks."""
        network: Any = self.kosmosg
        network.to(device)
        self._null = None

    def check_vocabulary(self) -> None:
        """Check that tokenizer and language model belong together.

        Raises:
            WeightsError: With both sizes.
        """
        if len(self.tokenizer) != self.kosmosg.vocabulary_size:
            raise WeightsError(
                f"The tokenizer has {len(self.tokenizer)} entries, but the language model "
                f"{self.kosmosg.vocabulary_size}. Convert the checkpoint again with its own "
                "tokenizer."
            )

    @torch.no_grad()
    def conditions(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        image_weights: Sequence[float] | None = None,
    ) -> Float[Tensor, "batch queries dim"]:
        """Encode prompts with their pictures, as one right-padded batch.

        Args:
            prompts: At least one.
            images: The pictures of each, in the order of its markers.
            image_weights: How much of each picture counts, over all prompts: 1 all of it, 0 as
                little as of an even grey one, more than 1 exaggerates.

        Raises:
            PromptError: If markers and images do not fit, or a prompt is too long.
            SettingError: If there is not one weight for each picture, or one is out of bounds.
            WeightsError: If the tokenizer is not the model's.
        """
        parsed = [parse_prompt(text, len(each)) for text, each in zip(prompts, images, strict=True)]
        size = self.kosmosg.image_size
        pixels = [clip_pixels(to_rgb(image), size) for each in images for image in each]
        if image_weights is None:
            return self._encode(parsed, pixels)
        if len(image_weights) != len(pixels):
            raise SettingError(
                f"There are {len(image_weights)} image weights for {len(pixels)} images. Give one "
                "for each, in their order."
            )
        weights = [check_number("an image weight", each, 0, 3) for each in image_weights]
        return self._encode(parsed, pixels, torch.tensor(weights) if weights else None)

    @torch.no_grad()
    def negatives(self, texts: Sequence[str]) -> Float[Tensor, "batch queries dim"]:
        """Encode negative prompts, each on its own; a blank one is the null condition.

        A condition that is computed alone depends on nothing else. One padded batch would save a
        tenth of conditioning, which is a hundredth of a prediction (``benchmarks/``).
        """
        rows = [
            self._encode([parse_text(text)]) if text.strip() else self.null_condition()
            for text in texts
        ]
        return torch.cat(rows)

    def null_condition(self) -> Float[Tensor, "1 queries dim"]:
        """Return the unconditional condition, computed at the first call and then kept."""
        if self._null is None:
            # What is kept may later be used where gradients are wanted.
            with torch.inference_mode(False), torch.no_grad():
                self._null = self.kosmosg.null_condition()
        return self._null

    def _encode(
        self,
        prompts: Sequence[Prompt],
        pixels: Sequence[np.ndarray] = (),
        image_weights: Tensor | None = None,
    ) -> Float[Tensor, "batch queries dim"]:
        self.check_vocabulary()
        tokens = [
            self.tokenizer.tokenize_prompt(prompt, self.kosmosg.image_slots) for prompt in prompts
        ]
        batch = replace(collate(tokens, pixels), image_weights=image_weights)
        return self.kosmosg(batch.to(self.kosmosg.device, self.kosmosg.dtype))


def pair(
    prompt: Texts, images: Images | Sequence[Images] | None, negative_prompt: Texts | None
) -> tuple[list[str], list[list[Image.Image]], list[str]]:
    """Bring one prompt or several, their pictures and negative prompts, into lists of one length.

    Raises:
        PromptError: If the numbers do not fit, or something is no picture.
    """
    if isinstance(prompt, str):
        prompts, pictures = [prompt], [_list(images)]
    else:
        prompts = list(prompt)
        given = [images] if isinstance(images, Image.Image) else images
        pictures = [[] for _ in prompts] if given is None else [_list(each) for each in given]
    if not prompts or len(prompts) != len(pictures):
        raise PromptError(
            f"There are {len(prompts)} prompts and {len(pictures)} sequences of images. Give at "
            "least one prompt, and one sequence of images for each."
        )
    if negative_prompt is None or isinstance(negative_prompt, str):
        negatives = [negative_prompt or ""] * len(prompts)
    else:
        negatives = list(negative_prompt)
    if len(negatives) != len(prompts):
        raise PromptError(
            f"There are {len(negatives)} negative prompts for {len(prompts)} prompts. Give one for "
            "all, or one for each."
        )
    return prompts, pictures, negatives


def _list(images: Any) -> list[Image.Image]:
    """Make a list of the pictures of one prompt, which may be a single one, or none."""
    if images is None:
        return []
    listed: list[Any] = [images] if isinstance(images, Image.Image | str) else list(images)
    for number, image in enumerate(listed, start=1):
        if not isinstance(image, Image.Image):
            raise PromptError(
                f"Image {number} of a prompt is a {type(image).__name__}, not a picture of Pillow. "
                "Open files with PIL.Image.open."
            )
    return listed


def interpolate(
    first: Float[Tensor, "1 queries dim"], second: Float[Tensor, "1 queries dim"], share: float
) -> Float[Tensor, "1 queries dim"]:
    """Mix two conditions: ``share`` 0 is the first, 1 the second, in between a straight line."""
    return torch.lerp(first, second, share)

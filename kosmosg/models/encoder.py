"""Prompts and images → conditions: everything up to what the U-Net takes in place of CLIP's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from kosmosg.errors import PromptError, SettingError, WeightsError
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.batch import collate
from kosmosg.prompts.colours import to_rgb
from kosmosg.prompts.images import clip_pixels
from kosmosg.prompts.prompt import Prompt, parse_prompt, parse_text
from kosmosg.prompts.tokenizer import KosmosGTokenizer
from kosmosg.utils.checks import check_number

Images = Image.Image | Sequence[Image.Image]
Texts = str | Sequence[str]


# The null condition of each model, with the state of the weights that it belongs to.
_kept: WeakKeyDictionary[KosmosG, tuple[list[Any], Tensor]] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class PromptEncoder:
    """Tokenizer and KOSMOS-G, and where it runs: its weights may be elsewhere until then."""

    kosmosg: KosmosG
    tokenizer: KosmosGTokenizer
    device: torch.device

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
        """Encode prompts with their images, as one right-padded batch.

        Args:
            prompts: At least one.
            images: The images of each, in the order of its markers.
            image_weights: How much of each image counts, over all prompts: 1 all of it, 0 as
                little as of an even grey one, more than 1 exaggerates.

        Raises:
            PromptError: If markers and images do not fit, or a prompt is too long.
            SettingError: If there is not one weight for each image, or one is out of bounds.
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
        """Encode negative prompts, each different one once; a blank one is the null condition.

        A condition that is computed alone depends on nothing else. One padded batch would save a
        tenth of conditioning, which is a hundredth of a prediction (``benchmarks/``).
        """
        rows = {
            text: self._encode([parse_text(text)]) if text.strip() else self.null_condition()
            for text in dict.fromkeys(texts)
        }
        return torch.cat([rows[text] for text in texts])

    def null_condition(self) -> Float[Tensor, "1 queries dim"]:
        """Return the null condition, computed anew only if the weights have changed since.

        A change is what autograd would notice: other tensors (``to``, ``half``, an adapter), or
        values written into these. Neither writing through ``.data``, which nothing here does, nor
        another strength of an adapter is one.
        """
        kept = _kept.get(self.kosmosg)
        if kept is None or kept[0] != _state(self.kosmosg):
            # What is kept may later be used where gradients are wanted.
            with torch.inference_mode(False), torch.no_grad():
                condition = self._encode([parse_text("")])
            # Their state afterwards: weights that are offloaded have moved.
            _kept[self.kosmosg] = kept = _state(self.kosmosg), condition
        return kept[1]

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
        return self.kosmosg(batch.to(self.device, self.kosmosg.dtype))


def pair(
    prompt: Texts, images: Images | Sequence[Images] | None
) -> tuple[list[str], list[list[Image.Image]]]:
    """Bring one prompt or several, and their images, into lists of one length.

    Raises:
        PromptError: If the numbers do not fit, or something is no image.
    """
    if isinstance(prompt, str):
        return [prompt], [_list(images)]
    prompts = list(prompt)
    given = [images] if isinstance(images, Image.Image) else images
    shown = [[] for _ in prompts] if given is None else [_list(each) for each in given]
    if not prompts or len(prompts) != len(shown):
        raise PromptError(
            f"There are {len(prompts)} prompts and {len(shown)} sequences of images. Give at "
            "least one prompt, and one sequence of images for each."
        )
    return prompts, shown


def pair_negatives(negative_prompt: Texts | None, prompts: int) -> list[str]:
    """Bring negative prompts into a list with one for each prompt; blank where there is none.

    Raises:
        PromptError: If there are neither one nor as many as prompts.
    """
    if negative_prompt is None or isinstance(negative_prompt, str):
        return [negative_prompt or ""] * prompts
    negatives = list(negative_prompt)
    if len(negatives) != prompts:
        raise PromptError(
            f"There are {len(negatives)} negative prompts for {prompts} prompts. Give one for all, "
            "or one for each."
        )
    return negatives


def check_embeds(
    name: str, embeds: Any, dim: int, rows: int | None = None
) -> Float[Tensor, "batch queries dim"]:
    """Check conditions that a user gives in place of prompts, and bring them to a number of rows.

    Raises:
        PromptError: Naming the shape that is wanted.
    """
    is_tensor = isinstance(embeds, Tensor)
    fits = is_tensor and embeds.ndim == 3 and embeds.shape[-1] == dim and embeds.numel() > 0
    if not fits or not embeds.is_floating_point():
        found = f"{embeds.dtype}, {tuple(embeds.shape)}" if is_tensor else type(embeds).__name__
        raise PromptError(
            f"{name} must be numbers of shape (prompts, tokens, {dim}), as encode_prompt returns "
            f"them, not {found}."
        )
    if rows is None or len(embeds) == rows:
        return embeds
    if len(embeds) != 1:
        raise PromptError(
            f"There are {len(embeds)} rows of {name} for {rows} prompts. Give one for all, or one "
            "for each."
        )
    return embeds.expand(rows, -1, -1)


def _list(images: Any) -> list[Image.Image]:
    """Make a list of the images of one prompt, which may be a single one, or none."""
    if images is None:
        return []
    listed: list[Any] = [images] if isinstance(images, Image.Image | str) else list(images)
    for number, image in enumerate(listed, start=1):
        if not isinstance(image, Image.Image):
            raise PromptError(
                f"Image {number} of a prompt is a {type(image).__name__}, not an image of Pillow. "
                "Open files with PIL.Image.open."
            )
    return listed


def _state(kosmosg: KosmosG) -> list[Any]:
    """Describe which tensors the weights are, and how often each has been written into.

    The references are weak: no two storages share one, even if one comes after the other in the
    same place, and none is kept from being freed.
    """
    return [
        (
            StorageWeakRef(parameter.untyped_storage()),
            0 if parameter.is_inference() else parameter._version,
        )
        for parameter in kosmosg.parameters()
    ]

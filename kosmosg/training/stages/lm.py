"""Stage 1: multimodal language modelling (paper, section 2.1).

The authors published neither code nor data of this stage; what is trained follows the paper.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from kosmosg.data.preprocessing import Prepared
from kosmosg.models.kosmosg import KosmosG
from kosmosg.prompts.batch import Batch
from kosmosg.prompts.tokenizer import PAD_ID, KosmosGTokenizer
from kosmosg.training.losses import IGNORED, language_loss
from kosmosg.training.stage import Stage
from kosmosg.training.stages.common import (
    PromptBatch,
    SeededSample,
    collate_prompts,
    read_prompts,
    save_weights,
    train_language_model,
)


class LanguageStage(Stage):
    """Trains language model, resampler and the top of the vision tower on the next text token.

    Args:
        kosmosg: AlignerNet in it stays as it is.
        tokenizer: Knows the delimiters of images, which are no text.
        start: Weights folder that this began with.
    """

    def __init__(self, kosmosg: KosmosG, tokenizer: KosmosGTokenizer, start: Path):
        super().__init__()
        self.kosmosg = kosmosg
        self.kosmosg.requires_grad_(False)
        train_language_model(self.kosmosg)
        self._start = start
        symbols = tokenizer.symbols
        self._no_text = (PAD_ID, symbols.index("<image>"), symbols.index("</image>"))

    def set_modes(self) -> None:
        """Train with dropout."""
        self.train()

    def collate(self, samples: Sequence[Prepared]) -> PromptBatch:
        """Pad the sequences; nothing is drawn for them."""
        return collate_prompts([SeededSample(prepared=sample, seed=0) for sample in samples])

    def weigh(self, batch: PromptBatch) -> float:
        """Count the tokens that are predicted."""
        return float((self.labels(batch.prompts)[:, 1:] != IGNORED).sum())

    def losses(self, batch: PromptBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy of the text."""
        features = read_prompts(self.kosmosg, batch.prompts)
        embedding = self.kosmosg.kosmos2.text_model.model.embed_tokens.weight
        return {"loss": language_loss(features, embedding, self.labels(batch.prompts))}

    def labels(self, prompts: Batch) -> Int64[Tensor, "batch tokens"]:
        """Mark which tokens are predicted: those of text, and the ends of documents."""
        ignored = prompts.image_mask.clone()
        for symbol in self._no_text:
            ignored |= prompts.ids == symbol
        return torch.where(ignored, IGNORED, prompts.ids)

    def save(self, directory: Path) -> None:
        """Write a weights folder."""
        save_weights(self.kosmosg, "lm", self._start, directory)

"""Stage 2: AlignerNet learns to say what CLIP's text encoder says (paper, section 2.2)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from kosmosg.checkpoints.loading import save_module
from kosmosg.checkpoints.stable_diffusion import encode_captions
from kosmosg.models.aligner import Reconstruction
from kosmosg.models.kosmosg import KosmosG
from kosmosg.training.losses import alignment_loss
from kosmosg.training.stage import Stage
from kosmosg.training.stages.common import (
    PromptBatch,
    SeededSample,
    collate_prompts,
    save_weights,
)


class AlignStage(Stage):
    """Trains both halves of AlignerNet on captions alone; the language model is frozen.

    Args:
        kosmosg: Its AlignerNet is trained.
        reconstruction: The half N, which later stages do without.
        text_encoder: CLIP's, whose last hidden state is the target.
        clip_tokenizer: Its tokenizer.
        start: Weights folder that this began with.
        count_padding: Reconstruct padded positions too, and measure them. Without, a caption has
            the same loss in any batch.
        frozen_dropout: Leave the dropout of the frozen language model on.

    NOTE(reference): the authors count padding and leave dropout on; the paper has neither.
    """

    def __init__(
        self,
        kosmosg: KosmosG,
        reconstruction: Reconstruction,
        text_encoder: CLIPTextModel,
        clip_tokenizer: CLIPTokenizer,
        start: Path,
        *,
        count_padding: bool = True,
        frozen_dropout: bool = True,
    ):
        super().__init__()
        self.kosmosg = kosmosg
        self.reconstruction = reconstruction
        self.text_encoder = text_encoder
        self.requires_grad_(False)
        self.kosmosg.aligner.requires_grad_(True)
        self.reconstruction.requires_grad_(True)
        self._clip_tokenizer = clip_tokenizer
        self._start = start
        self._count_padding, self._frozen_dropout = count_padding, frozen_dropout

    def set_modes(self) -> None:
        """Train AlignerNet; what is frozen may still have its dropout."""
        self.train()
        self.text_encoder.eval()
        self.kosmosg.kosmos2.train(self._frozen_dropout)

    def collate(self, samples: Sequence[SeededSample]) -> PromptBatch:
        """Pad the captions, for both tokenizers."""
        captions = [sample.prepared.caption for sample in samples]
        return collate_prompts(samples, encode_captions(self._clip_tokenizer, captions)[0])

    def losses(self, batch: PromptBatch) -> dict[str, Tensor]:
        """Compare with CLIP, and the way back with where it began."""
        prompts = batch.prompts
        with torch.no_grad():
            features = self.kosmosg.features(prompts)
            # NOTE(reference): CLIP sees its padding; Stable Diffusion was trained so.
            target = self.text_encoder(batch.captions).last_hidden_state
        condition = self.kosmosg.aligner(features, prompts.padding_mask)
        left_out = None if self._count_padding else prompts.padding_mask
        loss = alignment_loss(
            condition=condition,
            target=target,
            reconstruction=self.reconstruction(condition, features.shape[1], left_out),
            features=features,
            counted=None if left_out is None else ~left_out,
        )
        return {"loss": loss.total, "mse": loss.mse, "reconstruction": loss.reconstruction}

    def save(self, directory: Path) -> None:
        """Write a weights folder, with the half N beside it."""
        save_weights(self.kosmosg, "align", self._start, directory)
        save_module(self.reconstruction, directory / "reconstruction")

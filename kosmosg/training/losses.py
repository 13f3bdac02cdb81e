"""The losses of the three stages, as pure functions of tensors.

They are what the authors' code computes; where the paper says otherwise, an argument gives the
paper's reading.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # a label that no loss counts


@dataclass(frozen=True, kw_only=True)
class AlignmentLoss:
    """Both parts of the aligning stage's loss; the total is their sum."""

    mse: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """What is minimised."""
        return self.mse + self.reconstruction


def language_loss(
    features: Float[Tensor, "batch tokens width"],
    embedding: Float[Tensor, "vocabulary width"],
    labels: Int64[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Next-token cross-entropy, mean over the labels that count (paper, section 2.1).

    Logits are computed where a label counts and nowhere else.

    Args:
        features: Of each position, which predict the token that follows.
        embedding: Of the tokens, which is the output matrix too.
        labels: The tokens themselves; ``IGNORED`` at image slots, delimiters and padding.
    """
    following = labels[:, 1:]
    counts = following != IGNORED
    return token_loss(features[:, :-1][counts], embedding, following[counts])


def token_loss(
    features: Float[Tensor, "tokens width"],
    embedding: Float[Tensor, "vocabulary width"],
    following: Int64[Tensor, "tokens"],
) -> Float[Tensor, ""]:
    """Cross-entropy of tokens that all count; 0 if there is none."""
    logits = features @ embedding.T.to(features.dtype)
    total = F.cross_entropy(logits.float(), following, reduction="sum")
    return total / max(1, len(following))


def alignment_loss(
    *,
    condition: Float[Tensor, "batch queries dim"],
    target: Float[Tensor, "batch queries dim"],
    reconstruction: Float[Tensor, "batch tokens source"],
    features: Float[Tensor, "batch tokens source"],
    counted: Bool[Tensor, "batch tokens"] | None = None,
) -> AlignmentLoss:
    """Compare the condition with CLIP's and the reconstruction with what it came from.

    Paper, equations 5 and 6, as element means; the second is weighted with 77 over the length.
    If some positions do not count, mean and length are those of each sample on its own, so that
    neither padding nor the rest of the batch has a say.

    Args:
        condition: What M makes of the features.
        target: CLIP's last hidden state of the same caption.
        reconstruction: What N makes of the condition.
        features: The language model's features.
        counted: True at positions that the reconstruction is measured at.

    NOTE(reference): the authors count padded positions too; leave ``counted`` out for that.
    """
    mse = F.mse_loss(condition.float(), target.float())
    queries, tokens = condition.shape[1], features.shape[1]
    error = (reconstruction.float() - features.float()).square().mean(dim=2)
    if counted is None:
        return AlignmentLoss(mse=mse, reconstruction=queries / tokens * error.mean())
    lengths = counted.sum(dim=1)
    means = (error * counted).sum(dim=1) / lengths
    return AlignmentLoss(mse=mse, reconstruction=(queries / lengths * means).mean())


def replace_by_null(
    condition: Float[Tensor, "batch queries dim"],
    null: Float[Tensor, "1 queries dim"],
    draws: Float[Tensor, "batch"],
    probability: float = 0.1,
) -> Float[Tensor, "batch queries dim"]:
    """Put the null condition in place of those whose uniform draw is below the probability.

    The model then learns both sides of guidance. Gradients reach the null condition.
    """
    return torch.where((draws < probability)[:, None, None], null.to(condition), condition)


def diffusion_loss(
    predicted: Float[Tensor, "batch channels height width"],
    noise: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, ""]:
    """Mean squared error of the predicted noise (paper, equation 3).

    The mean over the batch has the gradient of the authors' sum over it, which their trainer
    divides by the batch size.
    """
    return F.mse_loss(predicted.float(), noise.float())

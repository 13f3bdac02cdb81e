"""What the reference numbers do not reach: the language loss and the paper's options."""

import math

import pytest
import torch

from kosmosg.training.losses import (
    IGNORED,
    alignment_loss,
    diffusion_loss,
    language_loss,
    replace_by_null,
)


def test_language_loss_counts_the_labels_that_count() -> None:
    """Position k predicts token k + 1; ignored labels weigh nothing."""
    labels = torch.tensor([[0, 2, IGNORED, 1]])
    embedding = torch.eye(3)  # features are logits
    features = torch.zeros(1, 4, 3)
    assert language_loss(features, embedding, labels).item() == pytest.approx(math.log(3))
    features[0, 0, 2] = features[0, 2, 1] = 50.0
    assert language_loss(features, embedding, labels).item() == pytest.approx(0.0, abs=1e-6)
    features[0, 1] = torch.tensor([50.0, 0.0, 0.0])  # predicts the ignored one
    assert language_loss(features, embedding, labels).item() == pytest.approx(0.0, abs=1e-6)


def test_padded_positions_can_be_left_out() -> None:
    """Each sample then has its own length and weight."""
    features = torch.zeros(2, 4, 2)
    rebuilt = torch.ones(2, 4, 2)
    rebuilt[0, 2:] = 9.0
    counted = torch.tensor([[True, True, False, False], [True, True, True, True]])
    same = torch.zeros(2, 8, 2)
    common = {"condition": same, "target": same, "reconstruction": rebuilt, "features": features}
    left_out = alignment_loss(**common, counted=counted).reconstruction.item()
    assert left_out == (8 / 2 * 1.0 + 8 / 4 * 1.0) / 2
    assert alignment_loss(**common).reconstruction.item() == 8 / 4 * (41.0 + 1.0) / 2


def test_gradients_reach_condition_and_null() -> None:
    condition = torch.ones(2, 3, 4, requires_grad=True)
    null = torch.zeros(1, 3, 4, requires_grad=True)
    mixed = replace_by_null(condition, null, torch.tensor([0.05, 0.5]))
    assert mixed.sum(dim=(1, 2)).tolist() == [0.0, 12.0]
    mixed.sum().backward()
    assert condition.grad is not None
    assert null.grad is not None
    assert condition.grad.sum(dim=(1, 2)).tolist() == [0.0, 12.0]
    assert null.grad.sum().item() == 12.0


def test_half_precision_is_compared_in_float32() -> None:
    large = torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)
    assert diffusion_loss(large, -large).item() == pytest.approx(360_000.0)

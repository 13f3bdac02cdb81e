"""Optimizers, by name."""

from collections.abc import Iterable

import torch
from torch import nn

from kosmosg.training.options import LoopOptions


def make_optimizer(
    parameters: Iterable[nn.Parameter], options: LoopOptions
) -> torch.optim.Optimizer:
    """Make the optimizer that a run asks for.

    Adafactor (arXiv 1804.04235) keeps a row and a column in place of AdamW's two moments of each
    weight, and its learning rate is relative to the size of what is trained.
    """
    decay = options.weight_decay
    if options.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, lr=options.learning_rate, weight_decay=decay)
    return torch.optim.AdamW(
        parameters,
        lr=options.learning_rate,
        betas=options.betas,
        eps=options.epsilon,
        weight_decay=decay,
    )

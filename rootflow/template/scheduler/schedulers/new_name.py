"""The learning rate over a training, as a share of the optimizer's own."""

from __future__ import annotations

from rootflow import register
from rootflow.limits import PositiveFloat, PositiveInt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


@register
def new_name(
    optimizer: Optimizer, total_steps: PositiveInt, *, power: PositiveFloat = 2.0
) -> LambdaLR:
    """Learning rate that falls to 0, as a power of what is left of the training.

    Args:
        optimizer: rootflow passes it
        total_steps: updates in the whole training; rootflow fills it
        power: 1 falls in a line; more falls faster at first
    """
    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / total_steps) ** power)

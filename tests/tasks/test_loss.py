"""Any loss function as a task: which of them divide by what counts of a batch, and what they then add up."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rootflow.tasks import LossSum, LossTask

LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, -1, -1, -1, 1, 2, 0, -1])
WEIGHT = torch.tensor([0.5, 1.0, 4.0])


@pytest.mark.parametrize(
    "loss",
    [
        functools.partial(F.cross_entropy, ignore_index=-1),
        functools.partial(F.cross_entropy, ignore_index=-1, weight=WEIGHT, label_smoothing=0.1),
        functools.partial(functools.partial(F.cross_entropy, weight=WEIGHT), ignore_index=-1),
        functools.partial(F.cross_entropy, ignore_index=-1, weight=None, reduction="mean"),
        functools.partial(F.nll_loss, ignore_index=-1, weight=WEIGHT),
        nn.CrossEntropyLoss(WEIGHT, ignore_index=-1, label_smoothing=0.1),
        nn.NLLLoss(WEIGHT, ignore_index=-1),
    ],
)
def test_a_masked_loss_is_a_sum_that_parts_of_a_batch_add_up_to(loss: Callable[..., Any]) -> None:
    task = LossTask(loss)
    whole = loss(LOGITS, TARGETS)
    for sizes in ([8], [5, 3], [4, 4]):
        parts = [task.loss_sum(*part) for part in zip(LOGITS.split(sizes), TARGETS.split(sizes), strict=True)]
        total, count = sum(part.total for part in parts), sum(part.count for part in parts)
        assert total / count == pytest.approx(float(whole), rel=1e-6)
    measured = task.measure(LOGITS, TARGETS)["loss"]
    assert isinstance(measured, LossSum)
    assert measured.total / measured.count == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        functools.partial(F.cross_entropy, ignore_index=-1, reduction="sum"),
        functools.partial(F.cross_entropy, ignore_index=-1, size_average=True),
        functools.partial(F.mse_loss, reduction="mean"),
        nn.CrossEntropyLoss(reduction="sum"),
        lambda outputs, targets: F.cross_entropy(outputs, targets, ignore_index=-1),
    ],
)
def test_a_loss_that_nothing_is_known_of_is_a_mean_over_samples(loss: Callable[..., Any]) -> None:
    assert not hasattr(LossTask(loss), "loss_sum")


def test_a_partial_has_the_name_of_what_it_calls() -> None:
    assert LossTask(functools.partial(F.cross_entropy, ignore_index=-1)).title == "cross_entropy"
    assert LossTask("mse_loss").title == "mse_loss"
    assert LossTask(nn.CrossEntropyLoss()).title == "CrossEntropyLoss"

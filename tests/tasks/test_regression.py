"""Regression: standardised targets inside, the targets' own units outside."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rootflow.errors import ConfigError, RunError
from rootflow.tasks import Task
from rootflow.tasks.regression import Regression


def test_it_is_a_task() -> None:
    task: Task = Regression(0.0, 1.0)
    assert (task.monitor, task.higher_is_better) == ("val/loss", False)


@pytest.mark.parametrize(
    ("loss", "function"), [("mse", F.mse_loss), ("huber", F.huber_loss), ("l1", F.l1_loss)]
)
def test_the_loss_is_taken_on_standardised_targets(loss, function) -> None:
    outputs, targets = torch.randn(9, 1), 50 + 10 * torch.randn(9)
    task = Regression(50.0, 10.0, loss=loss)
    expected = function(outputs.squeeze(1), (targets - 50) / 10)
    assert task.loss(outputs, targets).item() == pytest.approx(expected.item())


def test_sums_over_uneven_batches_give_the_exact_means_in_the_targets_units() -> None:
    outputs, targets = torch.randn(70, 2), 50 + 10 * torch.randn(70, 2)
    task = Regression(50.0, 10.0)
    sums = [task.measure(outputs[i : i + 16], targets[i : i + 16]) for i in range(0, 70, 16)]
    means = {name: float(sum(part[name] for part in sums)) / 70 for name in sums[0]}
    errors = (50 + 10 * outputs - targets).double()
    assert means["mse"] == pytest.approx(errors.square().mean().item(), rel=1e-5)
    assert means["mae"] == pytest.approx(errors.abs().mean().item(), rel=1e-5)
    assert means["loss"] == pytest.approx(task.loss(outputs, targets).item(), rel=1e-5)


@pytest.mark.parametrize("targets", [torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1, 2, 4])])
def test_a_column_and_a_row_do_not_broadcast(targets: Tensor) -> None:
    outputs = torch.tensor([[1.0], [2.0], [3.0]])
    task = Regression(0.0, 1.0)
    assert task.loss(outputs, targets).item() == pytest.approx(1 / 3)
    assert task.loss(outputs, targets[:, None]).item() == pytest.approx(1 / 3)


def test_targets_far_from_zero_keep_their_digits() -> None:
    targets = torch.tensor([1e9, 1e9 + 1], dtype=torch.float64)
    assert Regression(1e9, 1.0).measure(torch.tensor([0.0, 0.0]), targets)["mae"].item() == 1.0


@pytest.mark.parametrize(("outputs", "targets"), [((4, 3), (4,)), ((4, 1), (5,)), ((2, 6), (6, 2))])
def test_shapes_that_do_not_belong_together_are_named(outputs, targets) -> None:
    with pytest.raises(RunError) as caught:
        Regression(0.0, 1.0).loss(torch.zeros(outputs), torch.zeros(targets))
    assert str(outputs) in str(caught.value)
    assert str(targets) in str(caught.value)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_targets_that_are_all_the_same_are_refused(std: float) -> None:
    with pytest.raises(ConfigError, match=r"task.target_std is .*must be above 0"):
        Regression(0.0, std)

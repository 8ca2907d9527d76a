"""Classification: the loss, exact measures over uneven batches, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rootflow.errors import RunError
from rootflow.tasks import Task
from rootflow.tasks.classification import Classification


def test_it_is_a_task() -> None:
    task: Task = Classification()
    assert (task.monitor, task.higher_is_better) == ("val/accuracy", True)


def test_the_loss_is_the_mean_cross_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    loss = Classification().loss(logits, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_smoothing_is_in_the_loss_but_not_in_what_is_measured() -> None:
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    plain, smooth = Classification(), Classification(label_smoothing=0.1)
    expected = 0.9 * F.cross_entropy(logits, targets) - 0.1 * logits.log_softmax(1).mean()
    assert smooth.loss(logits, targets).item() == pytest.approx(expected.item())
    assert smooth.measure(logits, targets)["loss"] == plain.measure(logits, targets)["loss"]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_shares_of_classes_are_targets_of_the_loss_too(label_smoothing: float) -> None:
    logits, targets, others = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([2, 1, 0] * 2)
    task = Classification(label_smoothing=label_smoothing)
    shares = 0.7 * F.one_hot(targets, 3) + 0.3 * F.one_hot(others, 3)
    expected = 0.7 * task.loss(logits, targets) + 0.3 * task.loss(logits, others)
    assert task.loss(logits, shares).item() == pytest.approx(expected.item(), rel=1e-5)


def test_shares_of_other_classes_are_refused_and_shares_are_not_measured() -> None:
    with pytest.raises(RunError, match=r"outputs have shape \(6, 3\) and the targets \(6, 4\)"):
        Classification().loss(torch.zeros(6, 3), torch.zeros(6, 4))
    with pytest.raises(RunError, match=r"outputs have shape \(6, 3\) and the targets \(6, 3\)"):
        Classification().measure(torch.zeros(6, 3), torch.zeros(6, 3))


def test_sums_over_uneven_batches_give_the_exact_means() -> None:
    logits, targets = torch.randn(70, 5), torch.randint(5, (70,))
    task = Classification()
    sums = [task.measure(logits[i : i + 16], targets[i : i + 16]) for i in range(0, 70, 16)]
    loss, accuracy = (float(sum(part[name] for part in sums)) / 70 for name in ("loss", "accuracy"))
    assert loss == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
    assert accuracy == (logits.argmax(1) == targets).double().mean().item()


def test_logits_in_bfloat16_are_measured_in_float32() -> None:
    logits, targets = torch.randn(64, 5).bfloat16(), torch.randint(5, (64,))
    measured = Classification().measure(logits, targets)["loss"]
    assert measured.dtype == torch.float32
    assert measured.item() == pytest.approx(F.cross_entropy(logits.float(), targets, reduction="sum").item())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_targets_may_be_of_any_integer_type(dtype: torch.dtype) -> None:
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    task = Classification()
    assert task.loss(logits, targets.to(dtype)) == task.loss(logits, targets)


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [((4, 3), (4, 1)), ((4, 3), (5,)), ((4,), (4,)), ((4, 3, 2, 2), (4, 2, 2))],
)
def test_shapes_that_do_not_belong_together_are_named(outputs, targets) -> None:
    with pytest.raises(RunError) as caught:
        Classification().loss(torch.zeros(outputs), torch.zeros(targets, dtype=torch.long))
    assert str(outputs) in str(caught.value)
    assert str(targets) in str(caught.value)


def test_numbers_as_targets_are_refused_with_a_hint() -> None:
    with pytest.raises(RunError, match=r"targets are torch.float32.*task=regression"):
        Classification().loss(torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize(("wrong", "span"), [(3, "0 to 3"), (-1, "-1 to 0")])
def test_a_class_that_the_model_does_not_have_is_named(wrong: int, span: str) -> None:
    with pytest.raises(RunError, match=f"targets run from {span}, but the model has 3 outputs"):
        Classification().measure(torch.zeros(2, 3), torch.tensor([0, wrong]))


def test_the_range_of_the_targets_is_read_from_the_first_batch_only() -> None:
    # Reading waits for the device. What comes later fails in torch, as it would without rootflow.
    task = Classification()
    task.loss(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(IndexError, match="Target 3 is out of bounds"):
        task.loss(torch.zeros(2, 3), torch.tensor([0, 3]))

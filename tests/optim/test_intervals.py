"""Every scheduler of torch has a decided interval."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch.optim import SGD, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from rootflow.optim.intervals import interval_of
from rootflow.optim.schedules import WarmupDecay

DECIDED = {
    "step": {"OneCycleLR", "CyclicLR", "CosineAnnealingLR", "PolynomialLR"},
    "epoch": {
        "LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR",
        "CosineAnnealingWarmRestarts",
    },
    "evaluation": {"ReduceLROnPlateau"},
    "as its members": {"SequentialLR", "ChainedScheduler"},
}  # fmt: skip


def make_optimizer() -> SGD:
    return SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)


def test_every_scheduler_of_torch_is_decided() -> None:
    decided = [name for names in DECIDED.values() for name in names]
    assert sorted([*decided, "LRScheduler"]) == sorted(lr_scheduler.__all__)


@pytest.mark.parametrize(
    ("name", "interval"),
    [(name, interval) for interval in ("step", "epoch", "evaluation") for name in sorted(DECIDED[interval])],
)
def test_a_class_counts_what_it_is_mostly_used_for(name: str, interval: str) -> None:
    assert interval_of(getattr(lr_scheduler, name)) == interval


def test_an_instance_counts_as_its_class() -> None:
    assert interval_of(lr_scheduler.CosineAnnealingLR(make_optimizer(), 10)) == "step"
    assert interval_of(lr_scheduler.ReduceLROnPlateau(make_optimizer())) == "evaluation"


def test_ours_counts_updates() -> None:
    ours = WarmupDecay(make_optimizer(), 10, steps_per_epoch=5)
    assert interval_of(ours) == interval_of(WarmupDecay) == "step"


def test_a_subclass_counts_as_its_base_unless_it_says_otherwise() -> None:
    class Steeper(lr_scheduler.CosineAnnealingLR):
        pass

    class PerUpdate(lr_scheduler.StepLR):
        interval: ClassVar[str] = "step"

    class Own(LRScheduler):
        pass

    assert [interval_of(c) for c in (Steeper, PerUpdate, Own)] == ["step", "step", "epoch"]


@pytest.mark.parametrize("combined", ["sequential", "chained"])
def test_several_schedulers_count_updates_if_one_of_them_does(combined: str) -> None:
    def combine(*makers):
        optimizer = make_optimizer()
        members = [make(optimizer) for make in makers]
        if combined == "chained":
            return lr_scheduler.ChainedScheduler(members)
        return lr_scheduler.SequentialLR(optimizer, members, milestones=[5])

    def linear(optimizer):
        return lr_scheduler.LinearLR(optimizer)

    def cosine(optimizer):
        return lr_scheduler.CosineAnnealingLR(optimizer, 10)

    def nested(optimizer):
        return lr_scheduler.ChainedScheduler([cosine(optimizer)])

    assert interval_of(combine(linear, linear)) == "epoch"
    assert interval_of(combine(linear, cosine)) == "step"
    assert interval_of(combine(linear, nested)) == "step"

"""A warm-up before any scheduler; its traces are in test_traces."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.optim import SGD, Adam, Optimizer, lr_scheduler

from rootflow.optim.intervals import interval_of
from rootflow.optim.warmup import Warmup


def make_optimizer() -> SGD:
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    return SGD([{"params": weights[:1], "lr": 1.0}, {"params": weights[1:], "lr": 0.1}], lr=1.0, momentum=0.9)


def rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def test_every_group_keeps_its_ratio() -> None:
    optimizer = make_optimizer()
    warmup = Warmup(lr_scheduler.StepLR(optimizer, 5), 4)
    found = [rates(optimizer)]
    for _ in range(4):
        optimizer.step()
        warmup.count_update()
        found.append(warmup.get_last_lr())
    assert [row[0] for row in found] == [0.125, 0.375, 0.625, 0.875, 1.0]
    assert [row[1] for row in found] == pytest.approx([0.0125, 0.0375, 0.0625, 0.0875, 0.1])


def test_it_counts_as_the_scheduler_within() -> None:
    optimizer = make_optimizer()
    found = [
        interval_of(Warmup(scheduler, 3))
        for scheduler in (
            lr_scheduler.CosineAnnealingLR(optimizer, 9),
            lr_scheduler.StepLR(optimizer, 9),
            lr_scheduler.ReduceLROnPlateau(optimizer),
        )
    ]
    assert found == ["step", "epoch", "evaluation"]


def test_after_it_a_rate_that_others_set_is_left_alone() -> None:
    optimizer = make_optimizer()
    warmup = Warmup(lr_scheduler.ExponentialLR(optimizer, 0.5), 1)
    optimizer.step()
    warmup.count_update()
    optimizer.param_groups[0]["lr"] = 8.0
    warmup.count_update()
    warmup.step()
    assert rates(optimizer) == [4.0, 0.05]


def test_the_momentum_that_a_scheduler_cycles_is_its_own() -> None:
    optimizer = make_optimizer()
    warmup = Warmup(lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=9), 4)
    alone = make_optimizer()
    cycle = lr_scheduler.OneCycleLR(alone, max_lr=1.0, total_steps=9)
    for _ in range(8):
        assert optimizer.param_groups[0]["momentum"] == alone.param_groups[0]["momentum"]
        for each in (optimizer, alone):
            each.step()
        warmup.step()
        warmup.count_update()
        cycle.step()
    assert rates(optimizer) == rates(alone)


def test_a_learning_rate_that_is_a_tensor_stays_that_tensor() -> None:
    def make() -> tuple[Adam, Warmup]:
        optimizer = Adam([torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(2.0))
        return optimizer, Warmup(lr_scheduler.ExponentialLR(optimizer, 0.5), 2)

    optimizer, warmup = make()
    held = optimizer.param_groups[0]["lr"]
    assert held == 0.5
    optimizer.step()
    warmup.step()
    warmup.count_update()
    assert held == 0.75
    saved = copy.deepcopy((optimizer.state_dict(), warmup.state_dict()))
    other, resumed = make()
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    for each, scheduler in ((optimizer, warmup), (other, resumed)):
        each.step()
        scheduler.step()
        scheduler.count_update()
        assert each.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["lr"] is held


def test_a_longer_warm_up_of_a_resumed_run_is_a_factor_on_the_rates_of_today() -> None:
    optimizer = make_optimizer()
    warmup = Warmup(lr_scheduler.ExponentialLR(optimizer, 0.5), 1)
    for _ in range(2):
        optimizer.step()
        warmup.step()
        warmup.count_update()
    saved = copy.deepcopy((optimizer.state_dict(), warmup.state_dict()))
    optimizer = make_optimizer()
    warmup = Warmup(lr_scheduler.ExponentialLR(optimizer, 0.5), 4)
    optimizer.load_state_dict(saved[0])
    warmup.load_state_dict(saved[1])
    assert warmup.num_updates == 1
    assert rates(optimizer) == pytest.approx([0.25 * 1.5 / 4, 0.025 * 1.5 / 4])

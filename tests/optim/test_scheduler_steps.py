"""Schedulers are advanced when it is their turn, at no more cost than their own step."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch.optim import SGD, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from rootflow.errors import CheckpointError, ConfigError
from rootflow.optim.scheduler_steps import SchedulerSteps
from rootflow.optim.schedules import WarmupDecay
from rootflow.optim.warmup import Warmup


def make_optimizer(lr: float = 1.0) -> SGD:
    return SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)


class Halving(LRScheduler):
    """A user's own, which halves the rate at each step and says what it counts."""

    interval: ClassVar[str] = "evaluation"

    def get_lr(self) -> list[Any]:
        return [base / 2**self.last_epoch for base in self.base_lrs]


class Following(Halving):
    """One that wants the monitored value."""

    def step(self, value: float | None = None) -> None:  # type: ignore[override]
        super().step()


class Needing:
    """A scheduler that is no LRScheduler, and needs the monitored value."""

    interval = "evaluation"

    def __init__(self) -> None:
        self.seen: list[float] = []

    def step(self, value: float) -> None:
        self.seen.append(value)


def test_one_that_counts_updates_is_stepped_by_its_own_method() -> None:
    scheduler = WarmupDecay(make_optimizer(), 9, steps_per_epoch=3)
    assert SchedulerSteps(scheduler).after_step == scheduler.step


@pytest.mark.parametrize("interval", ["epoch", "evaluation"])
def test_one_that_does_not_count_updates_costs_nothing_after_them(interval: str) -> None:
    optimizer = make_optimizer()
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    scheduler.interval = interval
    steps = SchedulerSteps(scheduler)
    assert steps.after_step is None
    optimizer.step()
    steps.after_epoch()
    assert optimizer.param_groups[0]["lr"] == (0.5 if interval == "epoch" else 1.0)
    steps.after_evaluation(None)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_first_update_that_was_skipped_is_nothing_to_warn_of() -> None:
    for scheduler in (
        lr_scheduler.CosineAnnealingLR(make_optimizer(), 4),
        Warmup(lr_scheduler.CosineAnnealingLR(make_optimizer(), 4), 2),
    ):
        steps = SchedulerSteps(scheduler)
        assert steps.after_step is not None
        for _ in range(4):
            steps.after_step()  # a warning would be an error
        assert scheduler.get_last_lr() == [pytest.approx(0.0)]


def test_no_scheduler_is_nothing_to_do() -> None:
    steps = SchedulerSteps()
    assert (steps.after_step, steps.state_dict()) == (None, {"schedulers": []})
    steps.after_epoch()
    steps.after_evaluation(0.5)


def test_the_monitored_value_is_for_those_that_need_it() -> None:
    needing, following = Needing(), Following(make_optimizer())
    steps = SchedulerSteps([needing, following, Halving(make_optimizer())])  # type: ignore[list-item]
    for value in (3.0, 2.0):
        for scheduler in steps.schedulers[1:]:
            scheduler.optimizer.step()
        steps.after_evaluation(value)
    assert needing.seen == [3.0, 2.0]
    assert [s.optimizer.param_groups[0]["lr"] for s in steps.schedulers[1:]] == [0.25, 0.25]


def test_a_value_that_is_followed_but_not_there_is_told() -> None:
    steps = SchedulerSteps(lr_scheduler.ReduceLROnPlateau(make_optimizer()))
    with pytest.raises(
        ConfigError, match="the scheduler follows the monitored value, but nothing is monitored"
    ):
        steps.after_evaluation(None)


@pytest.mark.parametrize("warmed", [False, True])
def test_one_that_follows_the_monitored_value_steps_after_evaluations_only(warmed: bool) -> None:
    plateau: LRScheduler = lr_scheduler.ReduceLROnPlateau(make_optimizer())
    plateau.interval = "epoch"
    with pytest.raises(
        ConfigError, match=r"interval is 'epoch', but ReduceLROnPlateau follows the monitored"
    ):
        SchedulerSteps(Warmup(plateau, 3) if warmed else plateau)


def test_an_interval_that_is_none_is_told_with_those_there_are() -> None:
    scheduler = lr_scheduler.StepLR(make_optimizer(), 3)
    scheduler.interval = "setp"
    with pytest.raises(ConfigError) as caught:
        SchedulerSteps(scheduler)
    assert str(caught.value) == (
        "StepLR.interval is 'setp'; it must be 'step', 'epoch' or 'evaluation'. Did you mean 'step'?"
    )


def make_steps() -> SchedulerSteps:
    plateau = lr_scheduler.ReduceLROnPlateau(make_optimizer(), patience=0)
    return SchedulerSteps([Warmup(plateau, 7), WarmupDecay(make_optimizer(), 12, steps_per_epoch=4)])


def advance(steps: SchedulerSteps, first: int, end: int) -> list[list[float]]:
    rates = []
    for step in range(first, end):
        rates.append([s.optimizer.param_groups[0]["lr"] for s in steps.schedulers])
        for scheduler in steps.schedulers:
            scheduler.optimizer.step()
        assert steps.after_step is not None
        steps.after_step()
        if step % 3 == 2:
            steps.after_evaluation(1.0)
    return rates


@pytest.mark.parametrize("stops", [0, 2, 5, 8])
def test_saved_and_loaded_states_go_on_bit_for_bit(stops: int) -> None:
    whole = advance(make_steps(), 0, 12)
    steps = make_steps()
    advance(steps, 0, stops)
    saved = copy.deepcopy((steps.state_dict(), [s.optimizer.state_dict() for s in steps.schedulers]))
    resumed = make_steps()
    for scheduler, state in zip(resumed.schedulers, saved[1], strict=True):
        scheduler.optimizer.load_state_dict(state)
    resumed.load_state_dict(saved[0])
    assert advance(resumed, stops, 12) == whole[stops:]


def test_the_states_of_other_schedulers_are_refused() -> None:
    with pytest.raises(CheckpointError, match="the checkpoint has 2 schedulers, the training has 0"):
        SchedulerSteps().load_state_dict(make_steps().state_dict())

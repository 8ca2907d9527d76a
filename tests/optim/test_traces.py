"""The learning rate of every update over 3 epochs of 4 updates, for each scheduler and what it may count.

The lists are worked out by hand or by a formula of the field; nothing here asks the schedulers' own code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rootflow.optim.build_scheduler import make_scheduler
from rootflow.optim.scheduler_steps import SchedulerSteps
from rootflow.optim.schedules import WarmupDecay

NUM_EPOCHS, STEPS_PER_EPOCH = 3, 4
MONITORED = (1.0, 1.0, 1.0)
"""Values of the evaluations, one after each epoch: the first is the best, and nothing improves."""


def trace(
    scheduler: Mapping[str, Any] | str,
    *,
    num_steps: int | None = 12,
    decay_after: int | None = None,
    decay_steps: int = 0,
) -> list[float]:
    """Return the learning rate that each update uses; the optimizer's own is 1."""
    optimizer = SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
    built = make_scheduler(scheduler, optimizer, num_steps=num_steps, steps_per_epoch=STEPS_PER_EPOCH)
    steps, rates = SchedulerSteps(built), []
    for epoch in range(NUM_EPOCHS):
        for _ in range(STEPS_PER_EPOCH):
            if len(rates) == decay_after:
                assert isinstance(built, WarmupDecay)
                built.begin_decay(decay_steps)
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            if steps.after_step is not None:
                steps.after_step()
        steps.after_epoch()
        steps.after_evaluation(MONITORED[epoch])
    return rates


def each_epoch(*rates: float) -> list[float]:
    return [rate for rate in rates for _ in range(STEPS_PER_EPOCH)]


def halved(step: int) -> float:
    return 1 / (1 + step)


CONSTANT = {"name": "warmup_decay", "shape": "constant", "warmup": "0 steps"}
LINEAR = {"name": "warmup_decay", "shape": "linear", "warmup": "0 steps"}
LINEAR_DOWN = [n / 24 for n in range(23, 0, -2)]
COSINE = {"name": "warmup_decay", "shape": "cosine", "warmup": "0 steps"}
COSINE_DOWN = [math.cos(math.pi * (i + 0.5) / 24) ** 2 for i in range(12)]
WSD = {"name": "warmup_decay", "shape": "one_minus_sqrt", "warmup": "1 epoch", "decay": "1 epoch"}
ROOTS = [1 - math.sqrt(n / 8) for n in (1, 3, 5, 7)]

ONE_CYCLE = {
    "name": "OneCycleLR",
    "max_lr": "auto",
    "anneal_strategy": "linear",
    "div_factor": 5.0,
    "final_div_factor": 10.0,
    "cycle_momentum": False,
}
CYCLIC = {"name": "CyclicLR", "base_lr": 0.2, "max_lr": "auto", "cycle_momentum": False}
PLATEAU = {"name": "ReduceLROnPlateau", "patience": 0}
IN_TURN = {
    "name": "SequentialLR",
    "schedulers": [
        {"name": "ConstantLR", "factor": 0.5, "total_iters": 9},
        {"name": "ExponentialLR", "gamma": 0.5},
    ],
}

TRACES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "constant": (CONSTANT, [1.0] * 12),
    "constant, step": ({**CONSTANT, "interval": "step"}, [1.0] * 12),
    "linear": (LINEAR, LINEAR_DOWN),
    "linear, step": ({**LINEAR, "interval": "step"}, LINEAR_DOWN),
    "linear after 5 %": (
        {"name": "warmup_decay", "shape": "linear"},
        [5 / 6, *((11.5 - i) / 11.4 for i in range(1, 12))],  # 0.6 of an update is the warm-up
    ),
    "cosine": (COSINE, COSINE_DOWN),
    "cosine, step": ({**COSINE, "interval": "step"}, COSINE_DOWN),
    "wsd": (WSD, [1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1, 1, 1, *ROOTS]),
    "wsd, step": ({**WSD, "interval": "step"}, [1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1, 1, 1, *ROOTS]),
    "StepLR": ({"name": "StepLR", "step_size": 1, "gamma": 0.5}, each_epoch(1, 0.5, 0.25)),
    "StepLR, epoch": (
        {"name": "StepLR", "step_size": 1, "gamma": 0.5, "interval": "epoch"}, each_epoch(1, 0.5, 0.25)
    ),
    "StepLR, evaluation": (
        {"name": "StepLR", "step_size": 1, "gamma": 0.5, "interval": "evaluation"}, each_epoch(1, 0.5, 0.25)
    ),
    "StepLR, step": (
        {"name": "StepLR", "step_size": 5, "gamma": 0.5, "interval": "step"}, [1] * 5 + [0.5] * 5 + [0.25] * 2
    ),
    "MultiStepLR": ({"name": "MultiStepLR", "milestones": [1, 2]}, each_epoch(1, 0.1, 0.01)),
    "MultiStepLR, evaluation": (
        {"name": "MultiStepLR", "milestones": [2], "interval": "evaluation"}, each_epoch(1, 1, 0.1)
    ),
    "MultiStepLR, step": (
        {"name": "MultiStepLR", "milestones": [3, 5], "interval": "step"}, [1] * 3 + [0.1] * 2 + [0.01] * 7
    ),
    "ExponentialLR": ({"name": "ExponentialLR", "gamma": 0.5}, each_epoch(1, 0.5, 0.25)),
    "ExponentialLR, step": (
        {"name": "ExponentialLR", "gamma": 0.5, "interval": "step"}, [0.5**i for i in range(12)]
    ),
    "ExponentialLR, evaluation": (
        {"name": "ExponentialLR", "gamma": 0.5, "interval": "evaluation"}, each_epoch(1, 0.5, 0.25)
    ),
    "PolynomialLR": (
        {"name": "PolynomialLR", "total_iters": "auto", "power": 2.0}, [(1 - i / 12) ** 2 for i in range(12)]
    ),
    "PolynomialLR, epoch": (
        {"name": "PolynomialLR", "total_iters": "auto", "interval": "epoch"}, each_epoch(1, 2 / 3, 1 / 3)
    ),
    "PolynomialLR, evaluation": (
        {"name": "PolynomialLR", "total_iters": 2, "interval": "evaluation"}, each_epoch(1, 0.5, 0)
    ),
    "CosineAnnealingLR": (
        {"name": "CosineAnnealingLR"}, [(1 + math.cos(math.pi * i / 12)) / 2 for i in range(12)]
    ),
    "CosineAnnealingLR, epoch": (
        {"name": "CosineAnnealingLR", "interval": "epoch"}, each_epoch(1, 0.75, 0.25)
    ),
    "CosineAnnealingLR, evaluation": (
        {"name": "CosineAnnealingLR", "T_max": 3, "interval": "evaluation"}, each_epoch(1, 0.75, 0.25)
    ),
    "CosineAnnealingWarmRestarts": (
        {"name": "CosineAnnealingWarmRestarts", "T_0": 2}, each_epoch(1, 0.5, 1)
    ),
    "CosineAnnealingWarmRestarts, step": (
        {"name": "CosineAnnealingWarmRestarts", "T_0": 4, "interval": "step"},
        [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4] * 3,
    ),
    "OneCycleLR": (
        {**ONE_CYCLE, "pct_start": 0.25}, [0.2, 0.6, *(1 - 0.98 * i / 9 for i in range(10))]
    ),
    "OneCycleLR, epoch": ({**ONE_CYCLE, "pct_start": 2 / 3, "interval": "epoch"}, each_epoch(0.2, 1, 0.02)),
    "CyclicLR": ({**CYCLIC, "step_size_up": 2}, [0.2, 0.6, 1, 0.6] * 3),
    "CyclicLR, epoch": ({**CYCLIC, "step_size_up": 1, "interval": "epoch"}, each_epoch(0.2, 1, 0.2)),
    "ReduceLROnPlateau": (PLATEAU, each_epoch(1, 1, 0.1)),
    "ReduceLROnPlateau, evaluation": ({**PLATEAU, "interval": "evaluation"}, each_epoch(1, 1, 0.1)),
    "SequentialLR": ({**IN_TURN, "milestones": [1]}, each_epoch(0.5, 1, 0.5)),
    "SequentialLR, step": (
        {**IN_TURN, "milestones": [3], "interval": "step"}, [0.5] * 3 + [0.5**i for i in range(9)]
    ),
    "LambdaLR": ({"name": "LambdaLR", "lr_lambda": halved}, each_epoch(1, 1 / 2, 1 / 3)),
    "LambdaLR, step": (
        {"name": "LambdaLR", "lr_lambda": halved, "interval": "step"}, [1 / n for n in range(1, 13)]
    ),
    "LambdaLR, evaluation": (
        {"name": "LambdaLR", "lr_lambda": halved, "interval": "evaluation"}, each_epoch(1, 1 / 2, 1 / 3)
    ),
    "chained": (
        {"name": "chained", "schedulers": [{"name": "ExponentialLR", "gamma": g} for g in (0.5, 0.1)]},
        each_epoch(1, 0.05, 0.0025),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TRACES)
def test_the_learning_rate_of_every_update_is_as_worked_out_by_hand(case: str) -> None:
    node, golden = TRACES[case]
    assert trace(node) == pytest.approx(golden, rel=1e-9, abs=1e-12)


def test_each_kind_of_scheduler_is_traced() -> None:
    names = {node["name"] for node, _ in TRACES.values()}
    assert len(names) == 13
    assert len(TRACES) == 39


@pytest.mark.parametrize("option", ["default", "linear", "cosine", "wsd"])
def test_in_an_open_training_the_rate_stays_until_it_is_told_to_fall(option: str) -> None:
    ends = {
        "default": ROOTS,
        "wsd": ROOTS,
        "linear": [7 / 8, 5 / 8, 3 / 8, 1 / 8],
        "cosine": [math.cos(math.pi * n / 16) ** 2 for n in (1, 3, 5, 7)],
    }
    shape = {"default": "auto", "wsd": "one_minus_sqrt"}.get(option, option)
    node = {"name": "warmup_decay", "shape": shape, "warmup": "2 steps"}
    rises = [0.25, 0.75]
    assert trace(node, num_steps=None) == rises + [1.0] * 10
    found = trace(node, num_steps=None, decay_after=6, decay_steps=4)
    assert found == pytest.approx([*rises, 1, 1, 1, 1, *ends[option], 0, 0])


def test_a_fall_that_begins_in_the_warm_up_begins_where_that_is() -> None:
    found = trace("default", num_steps=None, decay_after=6, decay_steps=4)  # 20 updates are 5 epochs
    rises = [(i + 0.5) / 20 for i in range(6)]
    assert found == pytest.approx([*rises, *(6.5 / 20 * root for root in ROOTS), 0, 0])


WARMED: dict[str, tuple[dict[str, Any], list[float]]] = {
    "StepLR": ({"name": "StepLR", "step_size": 1, "gamma": 0.5}, each_epoch(1, 0.5, 0.25)),
    "StepLR, evaluation": (
        {"name": "StepLR", "step_size": 1, "gamma": 0.5, "interval": "evaluation"}, each_epoch(1, 0.5, 0.25)
    ),
    "ExponentialLR, step": (
        {"name": "ExponentialLR", "gamma": 0.5, "interval": "step"}, [0.5**i for i in range(12)]
    ),
    "ReduceLROnPlateau": (PLATEAU, each_epoch(1, 1, 0.1)),
    "SequentialLR": ({**IN_TURN, "milestones": [1]}, each_epoch(0.5, 1, 0.5)),
}  # fmt: skip


@pytest.mark.parametrize(("warmup", "num_steps"), [("6 steps", 6.0), ("2 epochs", 8.0), ("20%", 2.4)])
@pytest.mark.parametrize("case", WARMED)
def test_a_warm_up_is_a_factor_on_what_the_scheduler_says(case: str, warmup: str, num_steps: float) -> None:
    node, golden = WARMED[case]
    risen = [min(1.0, (i + 0.5) / num_steps) for i in range(12)]
    found = trace({**node, "warmup": warmup})
    assert found == pytest.approx([rate * factor for rate, factor in zip(golden, risen, strict=True)])
    after = math.ceil(num_steps)
    assert found[after:] == trace(node)[after:]


@pytest.mark.parametrize("warmup", ["0 steps", "0%"])
def test_no_warm_up_is_none(warmup: str) -> None:
    node = {"name": "ExponentialLR", "gamma": 0.5}
    assert trace({**node, "warmup": warmup}) == trace(node)


def test_schedulers_of_several_optimizers_go_on_together() -> None:
    optimizers = [SGD([torch.nn.Parameter(torch.ones(1))], lr=lr) for lr in (1.0, 10.0)]
    makers: list[Callable[[Optimizer], LRScheduler]] = [
        lambda optimizer: WarmupDecay(optimizer, 4, steps_per_epoch=2, warmup="0%"),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2),
    ]
    steps = SchedulerSteps([make(o) for make, o in zip(makers, optimizers, strict=True)])
    found = []
    for _ in range(3):
        found.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        for optimizer in optimizers:
            optimizer.step()
        assert steps.after_step is not None
        steps.after_step()
    assert found == [pytest.approx(pair) for pair in ([7 / 8, 10.0], [5 / 8, 5.0], [3 / 8, 0.0])]

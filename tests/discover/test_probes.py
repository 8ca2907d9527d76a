"""Short trainings: their schedule, their score, their budget, and the choice that is made by them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rootflow.discover.probes import STEP, Ground, Probe, Probes, one_cycle, warmed_up
from rootflow.discover.range_test import Rates
from rootflow.discover.trials import Trials
from rootflow.tasks import LossTask
from rootflow.train.precision import Arithmetic


class Parabola(nn.Module):
    """A loss of curvature 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def training_step(self, batch: Tensor) -> Tensor:
        return 0.5 * self.w**2 + 0 * batch.sum()


@contextmanager
def probing(model: nn.Module, batches: list[Any], *, start_lr: float, max_steps: int) -> Iterator[Probes]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    task = None if isinstance(model, Parabola) else LossTask("mse_loss")
    with Trials(model, task, [optimizer], arithmetic=Arithmetic(torch.device("cpu"))) as trials:
        ground = Ground(trials, Rates([optimizer]), batches, batches, noise=0.0)
        yield Probes(ground, start_lr, max_steps)


def test_a_cycle_rises_over_a_tenth_and_falls_to_zero() -> None:
    assert one_cycle(20) == pytest.approx([0.5, 1.0, *(number / 18 for number in range(18, 0, -1))])
    assert warmed_up(20) == [0.5] + [1.0] * 19
    assert one_cycle(1) == [1.0]


def test_a_probe_of_sgd_ends_where_it_does_on_paper() -> None:
    with probing(Parabola(), [torch.zeros(1)], start_lr=0.1, max_steps=100) as probes:
        probes.run()
    weight = 1.0
    for share in one_cycle(10):
        weight *= 1 - 0.1 * share
    (first,) = [probe for probe in probes.rows if probe.lr == 0.1]
    assert first == Probe(0.1, 10, pytest.approx(0.5 * weight**2))


def test_samples_held_out_are_judged_in_training_mode_each_with_the_same_weight() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    batches = [(5 + torch.randn(size, 3), torch.randn(size, 1)) for size in (8, 4)]
    with probing(model, batches, start_lr=0.1, max_steps=100) as probes:
        found = probes.first_loss
    losses = [float(F.mse_loss(model(x), y).detach()) for x, y in batches]
    assert found == pytest.approx((8 * losses[0] + 4 * losses[1]) / 12)


def test_a_search_from_far_below_keeps_within_its_updates() -> None:
    with probing(Parabola(), [torch.zeros(1)], start_lr=1e-5, max_steps=100) as probes:
        lr = probes.run()
    assert probes.num_steps <= 100
    assert lr is not None
    assert lr > 0.01


def test_a_search_from_far_above_comes_down_to_where_it_holds() -> None:
    with probing(Parabola(), [torch.zeros(1)], start_lr=100.0, max_steps=300) as probes:
        lr = probes.run()
    assert probes.num_steps <= 300
    assert lr is not None
    assert 0.1 < lr < 2


SCORES = {0: 1.2, 1: 1.0, 2: 1.05, 3: 1.15, 4: 1.8}
"""Losses by place, of a training that began at 2."""


@pytest.mark.parametrize("offset", [0.0, -40.0, 1e6])
@pytest.mark.parametrize(("most_lost", "edge"), [(0.0, 1), (0.06, 2), (0.25, 3), (0.9, 4)])
def test_a_rate_is_usable_by_what_it_loses_of_the_gain(offset: float, most_lost: float, edge: int) -> None:
    with probing(Parabola(), [torch.zeros(1)], start_lr=0.01, max_steps=100) as probes:
        probes.first_loss = 2.0 + offset
        probes._found = {p: Probe(0.01 * STEP**p, 10, s + offset) for p, s in SCORES.items()}
        assert probes.best == probes._found[1]
        assert probes._edge(most_lost) == edge


def test_the_choice_lies_a_factor_of_three_below_the_first_rate_that_broke() -> None:
    with probing(Parabola(), [torch.zeros(1)], start_lr=0.01, max_steps=100) as probes:
        probes.first_loss = 2.0
        probes._found = {p: Probe(0.01 * STEP**p, 10, s) for p, s in SCORES.items()}
        probes.num_steps = 100
        assert probes._choice() == pytest.approx(1 + 0.6 * 2)
        probes._found[4] = Probe(0.1, 4, None)
        assert probes._choice() == pytest.approx(2)
        probes._found[2] = Probe(0.03, 4, None)
        assert probes._choice() == pytest.approx(0)


def test_a_rate_is_taken_only_where_the_next_holds_without_decay() -> None:
    with probing(Parabola(), [torch.zeros(1)], start_lr=1.5, max_steps=100) as probes:
        assert probes._held(0) == -1  # 2.7 breaks, above 2 over the curvature; 1.5 holds
        assert probes.num_steps == 10 + 20

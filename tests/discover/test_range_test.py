"""The range test against closed forms, and what it counts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rootflow.discover.range_test import (
    RangeTest,
    Rates,
    exponential,
    find_range,
    has_exploded,
    linear,
    run_range_test,
)
from rootflow.discover.trials import Trials
from rootflow.errors import ConfigError
from rootflow.tasks import LossTask
from rootflow.tasks.classification import Classification
from rootflow.train.precision import Arithmetic

CPU = Arithmetic(torch.device("cpu"))


class Parabola(nn.Module):
    """A loss of known curvature: 0.5 * curvature * w ** 2."""

    def __init__(self, curvature: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))
        self.curvature = curvature

    def training_step(self, batch: Tensor) -> Tensor:
        return 0.5 * self.curvature * self.w**2 + 0 * batch.sum()


def searched(
    model: nn.Module,
    make: Callable[..., Optimizer],
    batch: object,
    *,
    steps: int = 100,
    task: object = None,
    shape: str = "exponential",
) -> RangeTest:
    optimizer = make(model.parameters())
    with Trials(model, task, [optimizer], arithmetic=CPU) as trials:  # type: ignore[arg-type]
        return find_range(trials, Rates([optimizer]), [batch], max_steps=steps, shape=shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("curvature", [0.3, 10.0, 4000.0])
@pytest.mark.parametrize("shape", ["exponential", "linear"])
def test_the_bracket_of_plain_sgd_ends_at_two_over_the_curvature(curvature: float, shape: str) -> None:
    found = searched(Parabola(curvature), torch.optim.SGD, torch.zeros(1), shape=shape)
    bracket = found.bracket()
    assert bracket is not None
    assert 0.5 <= bracket[1] / (2 / curvature) <= 2


def test_where_all_usual_rates_explode_lower_ones_are_tried() -> None:
    found = searched(Parabola(1e9), torch.optim.SGD, torch.zeros(1))
    bracket = found.bracket()
    assert bracket is not None
    assert 0.5 <= bracket[1] / 2e-9 <= 2
    assert found.num_steps <= 100


def test_the_curve_of_sgd_is_the_one_on_paper() -> None:
    model = Parabola(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    lrs = [0.1, 0.2, 0.3]
    with Trials(model, None, [optimizer], arithmetic=CPU) as trials:
        found = run_range_test(trials, Rates([optimizer]), [torch.zeros(1)], lrs)
    weights = [1.0, 0.9, 0.9 * 0.8]
    assert found.lrs == lrs
    assert found.losses == pytest.approx([0.5 * w**2 for w in weights])


def test_skipped_updates_count_as_steps_and_add_no_point() -> None:
    class Odd(Parabola):
        def training_step(self, batch: Tensor) -> Tensor:
            return super().training_step(batch) * batch.sum()

    model = Odd(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batches = [torch.ones(1), torch.full((1,), math.nan), torch.ones(1)]
    with Trials(model, None, [optimizer], arithmetic=CPU) as trials:
        found = run_range_test(trials, Rates([optimizer]), batches, [1e-3] * 9)
    assert found.num_steps == 9
    assert len(found.points) == 6


def test_accuracies_are_those_of_the_batches_before_their_updates() -> None:
    torch.manual_seed(0)
    model, task = nn.Linear(4, 3), Classification()
    x, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    right = float((model(x).argmax(1) == y).float().mean())
    found = searched(model, torch.optim.SGD, (x, y), task=task, steps=20)
    assert found.points[0].accuracy == pytest.approx(right)
    plain = searched(model, torch.optim.SGD, (x, y), task=LossTask("cross_entropy"), steps=20)
    assert plain.points[0].accuracy is None
    assert plain.losses == found.losses


def test_accuracies_of_micro_batches_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    model, task = nn.Linear(4, 3), Classification()
    batch = torch.randn(30, 4), torch.randint(0, 3, (30,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    accuracies = []
    for size in (None, 7):
        with Trials(model, task, [optimizer], arithmetic=CPU, micro_batch_size=size) as trials:
            (point,) = run_range_test(trials, Rates([optimizer]), [batch], [0.01]).points
            accuracies.append(point.accuracy)
    assert accuracies[0] is not None
    assert accuracies[0] == pytest.approx(accuracies[1])


def test_groups_keep_the_ratios_of_their_rates_also_as_tensors() -> None:
    layers = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [
        {"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, (0.1, 0.01, 0.0), strict=True)
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    seen = []
    model = nn.Sequential(*layers)
    model.training_step = lambda batch: (
        seen.append(  # type: ignore[assignment]
            [float(group["lr"]) for group in optimizer.param_groups]
        )
        or model(batch).sum()
    )
    for make_tensors in (False, True):
        if make_tensors:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"])
        seen.clear()
        with Trials(model, None, [optimizer], arithmetic=CPU) as trials:
            run_range_test(trials, Rates([optimizer]), [torch.ones(1, 2)], [0.5, 1.0])
        assert seen == [pytest.approx([0.5, 0.05, 0.0]), pytest.approx([1.0, 0.1, 0.0])]


def test_a_scheduler_that_began_doesn_t_change_the_ratios() -> None:
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, (0.1, 0.01), strict=True)]
    optimizer = torch.optim.SGD(groups)
    torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: step, lambda step: 1.0])
    assert optimizer.param_groups[0]["lr"] == 0
    assert Rates([optimizer]).first == 0.1


def test_a_first_group_without_a_rate_is_refused() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.0)
    with pytest.raises(
        ConfigError, match="first parameter group of the SGD has the learning rate 0; a search needs"
    ):
        Rates([optimizer])


def test_rates_rise_by_a_factor_or_by_a_difference() -> None:
    assert exponential(0.01, 100.0, 5) == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert linear(1.0, 4) == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("losses", "is_over"),
    [
        ([2.3] * 20, False),
        ([2.3] * 20 + [6.0] * 5, False),
        ([2.3] * 20 + [math.inf], True),
        ([2.3] * 10 + [1.0] * 10 + [4.0] * 5, False),
        ([2.3] * 10 + [1.0] * 10 + [9.0] * 5, True),
        ([-1.0] * 10 + [-3.0] * 10 + [-1.0] * 5, False),
        ([-1.0] * 10 + [-3.0] * 10 + [6.0] * 5, True),
        ([], False),
    ],
)
def test_a_curve_has_exploded_far_above_where_it_began(losses: list[float], is_over: bool) -> None:
    assert has_exploded(losses) is is_over

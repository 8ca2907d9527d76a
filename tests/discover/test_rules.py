"""The rules behind `auto`: their values, their bounds, and that they leave no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rootflow.discover import threads
from rootflow.discover.batch_size import batch_size_by_data
from rootflow.discover.learning_rate import rule_lr
from rootflow.discover.settings import BatchSizeSettings
from rootflow.discover.threads import count_operations, find_num_threads
from rootflow.errors import ConfigError
from rootflow.train.objective import Objective


@pytest.mark.parametrize(
    ("num_samples", "size"),
    [(1294, 16), (45_000, 512), (12_500, 256), (24_400, 512), (300, 8), (5, 5), (1, 1)],
)
def test_the_batch_size_leaves_enough_updates_in_an_epoch(num_samples: int, size: int) -> None:
    found = batch_size_by_data(num_samples, BatchSizeSettings())
    assert found.value == size
    assert f"{num_samples:,} samples" in found.reason


def test_the_batch_size_obeys_its_bounds() -> None:
    assert batch_size_by_data(45_000, BatchSizeSettings(max=64)).value == 64
    assert batch_size_by_data(45_000, BatchSizeSettings(max=100)).value == 64
    assert batch_size_by_data(45_000, BatchSizeSettings(max=8)).value == 8
    assert batch_size_by_data(45_000, BatchSizeSettings(min_updates_per_epoch=1)).value == 4096


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "lr"),
    [
        (torch.optim.SGD, 128, 0.1),
        (torch.optim.SGD, 512, 0.4),
        (torch.optim.SGD, 8192, 1.0),
        (torch.optim.AdamW, 16, 0.003),
        (torch.optim.Adam, 256, 0.006),
        (torch.optim.NAdam, 8192, 0.008),
        (torch.optim.LBFGS, 128, 1),
        (torch.optim.Rprop, 128, 0.01),
    ],
)
def test_the_learning_rate_follows_the_rule_of_its_family(
    optimizer: type, batch_size: int, lr: float
) -> None:
    found = rule_lr(optimizer, batch_size)
    assert found.value == pytest.approx(lr)
    assert optimizer.__name__ in found.reason


def test_an_optimizer_without_rule_and_default_needs_a_number() -> None:
    class Mine:
        def __init__(self, params: object, lr: float) -> None: ...

    with pytest.raises(ConfigError, match=r"no rule for Mine; give optimizer\.lr a number"):
        rule_lr(Mine, 32)


def test_operations_are_counted_as_on_paper() -> None:
    linear, conv = Objective(nn.Linear(20, 30)), Objective(nn.Conv2d(3, 8, 3, padding=1))
    assert count_operations(linear, torch.zeros(5, 20)) == 2 * 5 * 20 * 30
    assert count_operations(conv, torch.zeros(2, 3, 10, 10)) == 2 * 2 * 100 * 8 * 27


def test_small_updates_get_one_thread_and_large_ones_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "count_usable_cores", lambda: 4)
    assert find_num_threads(Objective(nn.Linear(64, 10)), torch.zeros(16, 64)).value == 1
    assert find_num_threads(Objective(nn.Linear(4096, 4096)), torch.zeros(64, 4096)).value == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert find_num_threads(Objective(nn.Linear(4096, 4096)), torch.zeros(64, 4096)).value == 2


def test_counting_leaves_model_and_generators_as_they_were() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    count_operations(Objective(model), torch.randn(8, 4, generator=torch.Generator()))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, False, True]
    assert not any(module._forward_hooks for module in model)

"""The search for a learning rate: what it finds, what it spends, and that it leaves no trace."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rootflow.data.digits import digits
from rootflow.data.splits import Split
from rootflow.discover.learning_rate import LrReport, find_lr, search_lr, split_held_out
from rootflow.discover.probes import one_cycle
from rootflow.discover.settings import LrSettings
from rootflow.discover.suggestions import RULES
from rootflow.discover.trials import Trials
from rootflow.errors import ConfigError, DataError
from rootflow.tasks.classification import Classification
from rootflow.train.precision import Arithmetic
from rootflow.train.trainer import Trainer

CPU = Arithmetic(torch.device("cpu"))
Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    splits = digits(split=Split(test_frac=0.3))
    images, labels = zip(*splits.train, strict=True)  # type: ignore[arg-type]
    x, y = torch.stack(images), torch.as_tensor(labels)
    return list(zip(x.split(64)[:-1], y.split(64)[:-1], strict=True))


def classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


def searched(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[Any],
    *,
    task: Any = None,
    max_steps: int = 150,
    settings: LrSettings | None = None,
) -> LrReport:
    with Trials(model, task, [optimizer], arithmetic=CPU) as trials:
        return search_lr(
            trials, *split_held_out(batches), settings=settings or LrSettings(), max_steps=max_steps
        )


def accuracy_after(lr: float, make: Any, batches: list[Batch], test: Batch) -> float:
    model = classifier()
    optimizer = make(model.parameters(), lr=lr)
    for step, share in enumerate(one_cycle(100)):
        optimizer.param_groups[0]["lr"] = lr * share
        x, y = batches[step % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    return 100 * float((model(test[0]).argmax(1) == test[1]).float().mean())


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_the_suggestion_trains_as_well_as_the_best_of_a_grid(make: Any, batches: list[Batch]) -> None:
    *train, (x1, y1), (x2, y2), (x3, y3), (x4, y4) = batches
    test = torch.cat([x1, x2, x3, x4]), torch.cat([y1, y2, y3, y4])
    model = classifier()
    report = searched(model, make(model.parameters(), lr=1e-3), train, task=Classification(), max_steps=250)
    assert report.suggestion is not None
    grid = {lr: accuracy_after(lr, make, train, test) for lr in (1e-3, 1e-2, 1e-1, 1.0)}
    assert accuracy_after(report.suggestion, make, train, test) >= max(grid.values()) - 1.5
    assert min(grid.values()) < max(grid.values()) - 5


@pytest.mark.parametrize("max_steps", [100, 137, 250])
def test_no_more_updates_are_made_than_allowed_and_all_are_counted(
    max_steps: int, batches: list[Batch]
) -> None:
    class Counting(torch.optim.SGD):
        num_steps = 0

        def step(self, closure: Any = None) -> Any:
            Counting.num_steps += 1
            return super().step(closure)

    model = classifier()
    optimizer = Counting(model.parameters(), lr=0.1)
    report = searched(model, optimizer, batches, task=Classification(), max_steps=max_steps)
    assert report.num_steps == Counting.num_steps
    assert max_steps / 2 < report.num_steps <= max_steps


def test_below_a_hundred_updates_there_is_no_search(batches: list[Batch]) -> None:
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = searched(model, optimizer, batches, task=Classification(), max_steps=99)
    assert report == LrReport(None, "no search: 99 updates are below 100", elapsed_s=report.elapsed_s)


class Constant(nn.Module):
    """A loss with a gradient that no weight changes."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def training_step(self, batch: Tensor) -> Tensor:
        return batch.mean() + (self.w - self.w.detach()).sum()


def test_where_the_loss_never_falls_nothing_is_suggested() -> None:
    model = Constant()
    train = list(torch.randn(30, 8, 3))
    report = searched(model, torch.optim.Adam(model.parameters()), train)
    assert report.suggestion is None
    assert report.reason.startswith("no suggestion: no probe lowered the loss; no bracket; ")
    by_range_test = LrSettings(method="range_test")
    report = searched(model, torch.optim.Adam(model.parameters()), train, settings=by_range_test)
    assert (report.suggestion, report.low, report.high) == (None, None, None)
    assert report.reason.startswith("no suggestion: the loss never fell; ")


class Exploding(Constant):
    """A loss that any update makes infinite."""

    def training_step(self, batch: Tensor) -> Tensor:
        return (self.w.exp() / (self.w.detach() == 0).float()).sum() + 0 * batch.sum()


def test_where_every_rate_explodes_nothing_is_suggested() -> None:
    model = Exploding()
    report = searched(model, torch.optim.SGD(model.parameters(), lr=0.1), [torch.ones(2)] * 3)
    assert report.suggestion is None
    assert report.reason.startswith("no suggestion: even the lowest rates explode; ")


class Offset(nn.Module):
    """A regression whose loss is scaled and moved, as a negative log-likelihood may be."""

    def __init__(self, scale: float, offset: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(5, 1)
        self.scale, self.offset = scale, offset

    def training_step(self, batch: Batch) -> Tensor:
        return self.scale * F.mse_loss(self.linear(batch[0]), batch[1]) + self.offset


def test_neither_the_sign_nor_the_size_of_the_loss_matters() -> None:
    torch.manual_seed(1)
    x = torch.randn(640, 5)
    train = list(zip(x.split(32), (x @ torch.randn(5, 1)).split(32), strict=True))
    found = []
    for scale, offset in ((1.0, 0.0), (1.0, -50.0), (1024.0, 0.0)):
        model = Offset(scale, offset)
        found.append(searched(model, torch.optim.Adam(model.parameters()), train).suggestion)
    assert found[0] is not None
    assert found[1] == pytest.approx(found[0], rel=0.2)
    assert found[2] == pytest.approx(found[0], rel=0.2)


def test_a_rate_is_found_for_lbfgs() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 5)
    train = list(zip(x.split(64), (x @ torch.randn(5, 1)).split(64), strict=True))
    model = Offset(1.0, 0.0)
    report = searched(model, torch.optim.LBFGS(model.parameters(), max_iter=2), train, max_steps=100)
    assert report.suggestion is not None
    assert 0.05 < report.suggestion < 5


def state_hash(*objects: Any) -> str:
    file = io.BytesIO()
    states = [thing.state_dict() for thing in objects]
    numpy_state = [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]
    torch.save([states, torch.get_rng_state(), random.getstate(), numpy_state], file)
    return hashlib.sha256(file.getvalue()).hexdigest()


@pytest.mark.parametrize("method", ["probe", "range_test"])
def test_a_search_leaves_no_trace_and_is_the_same_again(method: Any, batches: list[Batch]) -> None:
    model = nn.Sequential(classifier(), nn.Dropout(0.1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    F.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    optimizer.step()
    gradients = [copy.deepcopy(parameter.grad) for parameter in model.parameters()]
    model[0][2].eval()
    before = state_hash(model, optimizer)
    settings = LrSettings(method=method)
    reports = [
        searched(model, optimizer, batches, task=Classification(), settings=settings).record()
        for _ in range(2)
    ]
    assert state_hash(model, optimizer) == before
    assert [m.training for m in model.modules()].count(False) == 1
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert gradient is not None
        assert parameter.grad is not None
        assert torch.equal(gradient, parameter.grad)
    for report in reports:
        report.pop("elapsed_s")
    assert reports[0] == reports[1]


def test_groups_keep_their_ratios_and_the_suggestion_is_for_the_first(batches: list[Batch]) -> None:
    found = []
    for base in (1e-3, 0.7):
        model = classifier()
        groups = [
            {"params": model[1].parameters(), "lr": base},
            {"params": [*model[2].parameters(), *model[4].parameters()], "lr": base / 4},
        ]
        optimizer = torch.optim.SGD(groups, momentum=0.5)
        found.append(searched(model, optimizer, batches, task=Classification()))
        assert [group["lr"] for group in optimizer.param_groups] == [base, base / 4]
    assert found[0].suggestion == found[1].suggestion
    assert [probe.lr for probe in found[0].probes] == [probe.lr for probe in found[1].probes]


def test_micro_batches_change_nothing_but_the_memory() -> None:
    torch.manual_seed(0)
    x = torch.randn(320, 5)
    train = list(zip(x.split(32), (x @ torch.randn(5, 1)).split(32), strict=True))
    found = []
    for size in (None, 8):
        model = nn.Linear(5, 1)
        with torch.no_grad():
            model.weight.fill_(0.1), model.bias.fill_(0.1)
        optimizer = torch.optim.Adam(model.parameters())
        report = find_lr(
            model,
            train_loader(train),
            "mse_loss",
            optimizer,
            trainer=plain_trainer(micro_batch_size=size or "auto"),
        )
        found.append(report.suggestion)
    assert found[0] is not None
    assert found[0] == pytest.approx(found[1], rel=0.1)


def plain_trainer(**settings: Any) -> Trainer:
    return Trainer(precision="fp32", channels_last=False, **settings)


def train_loader(train: list[Batch]) -> DataLoader[Any]:
    x, y = (torch.cat(parts) for parts in zip(*train, strict=True))
    order = torch.Generator().manual_seed(3)
    return DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True, generator=order)


def test_in_a_script_of_ones_own_the_loader_and_the_generators_are_as_before(batches: list[Batch]) -> None:
    loader = train_loader(batches)
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = state_hash(model, optimizer)
    order = loader.generator.get_state()
    report = find_lr(model, loader, nn.CrossEntropyLoss(), optimizer, settings=LrSettings(max_steps=150))
    assert state_hash(model, optimizer) == before
    assert torch.equal(loader.generator.get_state(), order)
    assert report.suggestion is not None
    assert 0.005 < report.suggestion < 1


def test_data_sets_and_names_will_do(batches: list[Batch]) -> None:
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    report = find_lr(classifier(), (x, y), "cross_entropy", "adamw", settings=LrSettings(max_steps=100))
    assert report.suggestion is not None
    assert 0.0005 < report.suggestion < 0.3
    ruled = find_lr(
        classifier(), (x, y), "cross_entropy", torch.optim.SGD, settings=LrSettings(method="rule")
    )
    assert (ruled.suggestion, ruled.method) == (0.1 * 32 / 128, "rule")


def test_data_good_for_one_pass_and_two_losses_are_refused(batches: list[Batch]) -> None:
    model = classifier()
    with pytest.raises(DataError, match="iterator"):
        find_lr(model, iter(batches), "cross_entropy", torch.optim.SGD)
    with pytest.raises(ConfigError, match="there are both a loss and a task; give one"):
        find_lr(model, batches, "cross_entropy", torch.optim.SGD, task=Classification())


def test_a_few_batches_are_split_and_one_serves_for_both() -> None:
    rows = [torch.zeros(10, 1)] * 10
    assert [len(part) for part in split_held_out(rows)] == [8, 2]
    assert [len(part) for part in split_held_out(rows[:2])] == [1, 1]
    assert [len(part) for part in split_held_out(rows[:1])] == [1, 1]
    assert [len(part) for part in split_held_out([torch.zeros(1000, 1)] * 100)] == [98, 2]


def test_a_report_goes_through_json_and_comes_back(batches: list[Batch]) -> None:
    model = classifier()
    report = searched(model, torch.optim.SGD(model.parameters(), lr=0.1), batches, task=Classification())
    read = LrReport.from_record(json.loads(json.dumps(report.record())))
    assert read.record() == report.record()
    assert (read.suggestion, read.reason, read.num_steps) == (
        report.suggestion,
        report.reason,
        report.num_steps,
    )
    assert read.curve[0]._fields == ("lr", "loss", "accuracy")
    assert read.probes[0]._fields == ("lr", "num_steps", "score")


@pytest.mark.parametrize("settings", [LrSettings(), LrSettings(method="range_test", suggest="steep")])
def test_a_picture_is_written(settings: LrSettings, batches: list[Batch], tmp_path: Path) -> None:
    model = classifier()
    report = searched(
        model, torch.optim.SGD(model.parameters(), lr=0.1), batches, task=Classification(), settings=settings
    )
    report.plot(tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    LrReport(None, "no search: 99 updates are below 100").plot(tmp_path / "nothing.png")
    assert (tmp_path / "nothing.png").stat().st_size > 1000


@pytest.mark.parametrize("suggest", ["valley", "slide", "steep", "minimum"])
@pytest.mark.parametrize("shape", ["exponential", "linear"])
def test_the_classic_test_suggests_by_each_rule(suggest: Any, shape: Any, batches: list[Batch]) -> None:
    model = classifier()
    settings = LrSettings(method="range_test", suggest=suggest, shape=shape)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = searched(model, optimizer, batches, task=Classification(), settings=settings)
    assert report.suggestion is not None
    assert report.low is not None
    assert report.high is not None
    lrs, losses = [point.lr for point in report.curve], [point.loss for point in report.curve]
    assert report.suggestion == float(f"{RULES[suggest](lrs, losses):.2g}")
    assert report.low < report.high
    assert report.num_steps <= 100
    assert report.reason.startswith(f"range test: {suggest}; bracket ")

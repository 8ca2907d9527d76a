"""The loop against loops written by hand, and each way in which a training can end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rootflow.checkpoint import WeightKeeper
from rootflow.data.loaders import as_loader
from rootflow.errors import ConfigError, DataError, RunError
from rootflow.tasks.classification import Classification
from rootflow.train.evaluation import evaluate
from rootflow.train.hooks import EvaluationReport
from rootflow.train.loop import StepReport
from rootflow.train.precision import Arithmetic
from rootflow.train.trainer import Trainer


def make_data(num_samples: int = 70, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_samples, 6, generator=generator)
    return TensorDataset(inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long())


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def make_trainer(**settings: Any) -> Trainer:
    return Trainer(**{"device": "cpu", "precision": "fp32", **settings})


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Recording:
    """Hooks that keep what they were given."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.evaluations: list[EvaluationReport] = []

    def on_batch_end(self, report: StepReport) -> None:
        self.steps.append(report)

    def on_post_performance_check(self, report: EvaluationReport) -> None:
        self.evaluations.append(report)


def test_training_gives_the_same_weights_as_a_loop_written_by_hand() -> None:
    data = make_data()
    model, other = make_model(), make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
    result = make_trainer(max_epochs=3).fit(
        model,
        DataLoader(data, batch_size=16),
        task=Classification(),
        optimizer=optimizer,
        scheduler=scheduler,
    )

    optimizer = torch.optim.AdamW(other.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
    for _ in range(3):
        for inputs, targets in DataLoader(data, batch_size=16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(other(inputs), targets).backward()
            optimizer.step()
            scheduler.step()
    assert torch.equal(weights(model), weights(other))
    assert (result.step, result.epoch, result.stop_reason) == (15, 3, "max_epochs reached")


def test_steps_limit_a_training_in_the_middle_of_an_epoch() -> None:
    model, recording = make_model(), Recording()
    result = make_trainer(max_steps=7).fit(
        model,
        DataLoader(make_data(), batch_size=16),
        DataLoader(make_data(seed=1), batch_size=16),
        task=Classification(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        hooks=[recording],
    )
    assert [report.step for report in recording.steps] == list(range(1, 8))
    assert [(e.step, e.epoch) for e in recording.evaluations] == [(5, 1), (7, 2)]
    assert (result.step, result.stop_reason) == (7, "max_steps reached")


def test_patience_ends_a_training_that_no_longer_improves() -> None:
    model = make_model()
    result = make_trainer(max_epochs=50, patience=3).fit(
        model,
        DataLoader(make_data(), batch_size=16),
        DataLoader(make_data(seed=1), batch_size=16),
        task=Classification(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
    )
    assert (result.epoch, result.stop_reason) == (4, "no improvement in 3 evaluations")
    assert result.best["epoch"] == 4  # of equal evaluations the latest


def test_a_training_that_nothing_would_end_is_refused() -> None:
    model = make_model()
    for max_epochs in ("auto", None):
        with pytest.raises(ConfigError, match=r"^nothing ends the training: give trainer\.max_epochs, "):
            make_trainer(max_epochs=max_epochs, patience=None).fit(
                model,
                DataLoader(make_data()),
                task=Classification(),
                optimizer=torch.optim.SGD(model.parameters()),
            )


def test_patience_alone_ends_a_training_of_no_set_length() -> None:
    model, recording = make_model(), Recording()
    result = make_trainer(max_epochs=None, patience=2).fit(
        model,
        DataLoader(make_data(), batch_size=16),
        task=Classification(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        hooks=[recording],
    )
    assert (result.step, result.epoch) == (15, 3)
    assert result.stop_reason == "no improvement in 2 evaluations"
    assert len(recording.evaluations) == 3


@pytest.mark.parametrize("others", [{"max_epochs": None}, {"max_epochs": 50}, {"max_steps": 9}])
def test_time_ends_a_training_at_the_first_update_after_it(
    others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0

    class SevenSecondsEach(Recording):
        def on_batch_end(self, report: StepReport) -> None:
            nonlocal now_s
            super().on_batch_end(report)
            now_s += 7.0

    monkeypatch.setattr("rootflow.train.session.time", SimpleNamespace(monotonic=lambda: now_s))
    model, recording = make_model(), SevenSecondsEach()
    result = make_trainer(max_time=42.0, **others).fit(
        model,
        DataLoader(make_data(), batch_size=16),
        DataLoader(make_data(seed=1), batch_size=16),
        task=Classification(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        hooks=[recording],
    )
    assert [(e.step, e.epoch, e.elapsed_s) for e in recording.evaluations] == [(5, 1, 35.0), (6, 2, 7.0)]
    assert (result.step, result.stop_reason) == (6, "max_time reached")


def test_of_two_limits_reached_at_once_that_on_updates_is_told() -> None:
    model = make_model()
    result = make_trainer(max_steps=1, max_time=1e-9).fit(
        model,
        DataLoader(make_data(), batch_size=16),
        task=Classification(),
        optimizer=torch.optim.SGD(model.parameters()),
    )
    assert (result.step, result.stop_reason) == (1, "max_steps reached")


def test_the_number_of_updates_is_that_of_the_nearest_limit() -> None:
    def num_steps(**limits: Any) -> int | None:
        data = as_loader(make_data(80), batch_size=16, device=torch.device("cpu"), is_train=True)
        return make_trainer(**limits).limits(data).num_steps

    assert num_steps(max_epochs=3) == 15
    assert num_steps(max_epochs=3, max_steps=7, max_time=1.0, patience=1) == 7
    assert num_steps(max_epochs=None, max_steps=7) == 7
    assert num_steps(max_epochs=None, max_time=60.0) is None
    assert num_steps(patience=3) is None
    assert num_steps(max_samples=100) == 7


def test_the_best_weights_are_those_of_the_best_evaluation(tmp_path: Path) -> None:
    model, val = make_model(), DataLoader(make_data(seed=1), batch_size=16)
    keeper = WeightKeeper(tmp_path, every_s=0)
    result = make_trainer(max_epochs=12).fit(
        model,
        DataLoader(make_data(), batch_size=16),
        val,
        task=Classification(),
        optimizer=torch.optim.SGD(model.parameters(), lr=3.0),
        keeper=keeper,
    )
    keeper.load("best", model)
    measured = evaluate(model, val, task=Classification(), arithmetic=Arithmetic(torch.device("cpu")))
    assert measured["accuracy"] == pytest.approx(result.best["val/accuracy"])
    assert result.best["val/accuracy"] >= result.last["val/accuracy"]


def test_evaluation_counts_each_sample_once_in_uneven_batches() -> None:
    model, data = make_model(), make_data(num_samples=67)
    arithmetic = Arithmetic(torch.device("cpu"))
    whole = evaluate(model, DataLoader(data, batch_size=67), task=Classification(), arithmetic=arithmetic)
    parts = evaluate(model, DataLoader(data, batch_size=16), task=Classification(), arithmetic=arithmetic)
    assert parts["accuracy"] == pytest.approx(whole["accuracy"], abs=1e-12)
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert model.training


def test_schedulers_advance_when_their_class_wants() -> None:
    def lrs(make: Any) -> list[float]:
        model, recording = make_model(), Recording()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        make_trainer(max_epochs=3).fit(
            model,
            DataLoader(make_data(num_samples=32), batch_size=16),
            DataLoader(make_data(num_samples=32), batch_size=16),
            task=Classification(),
            optimizer=optimizer,
            scheduler=make(optimizer),
            hooks=[recording],
        )
        return [round(report.lr, 6) for report in recording.steps]

    schedulers = torch.optim.lr_scheduler
    assert lrs(lambda o: schedulers.StepLR(o, 1, gamma=0.5)) == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    assert lrs(lambda o: schedulers.OneCycleLR(o, 1.0, total_steps=6))[0] == pytest.approx(0.04)
    assert len(set(lrs(lambda o: schedulers.OneCycleLR(o, 1.0, total_steps=6)))) == 6
    plateau = lrs(lambda o: schedulers.ReduceLROnPlateau(o, patience=0, factor=0.5, threshold=0.9))
    assert plateau == [0.1, 0.1, 0.1, 0.1, 0.05, 0.05]


def test_a_loader_is_told_the_epoch() -> None:
    class Counting:
        epochs: list[int] = []  # noqa: RUF012

        def __len__(self) -> int:
            return 1

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            yield make_data().tensors  # type: ignore[misc]

    model = make_model()
    make_trainer(max_epochs=3).fit(
        model, Counting(), task=Classification(), optimizer=torch.optim.SGD(model.parameters())
    )
    assert Counting.epochs == [1, 2, 3]


def test_every_submodule_gets_its_own_mode_back_after_an_evaluation() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Dropout(0.1))
    model[1].eval()
    evaluate(
        model, DataLoader(make_data(), 16), task=Classification(), arithmetic=Arithmetic(torch.device("cpu"))
    )
    assert [module.training for module in model] == [True, False, True]


def test_a_model_may_keep_a_tensor_from_an_evaluation_and_train_on_it() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.scale: Tensor | None = None

        def forward(self, inputs: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = torch.ones(3) * 2
            return self.layer(inputs) * self.scale

    model, arithmetic = Caching(), Arithmetic(torch.device("cpu"))
    loader = DataLoader(make_data(), 16)
    evaluate(model, loader, task=Classification(), arithmetic=arithmetic)
    optimizer = torch.optim.SGD(model.parameters())
    assert make_trainer(max_epochs=1).fit(model, loader, task=Classification(), optimizer=optimizer).step == 5


def test_a_monitored_metric_that_is_not_measured_is_told_with_those_that_are() -> None:
    task = Classification()
    task.monitor = "val/f1"
    model, loader = make_model(), DataLoader(make_data(), 16)
    with pytest.raises(
        RunError, match=r"^'val/f1' is monitored, but only train/loss, val/loss, val/accuracy were measured"
    ):
        make_trainer(max_epochs=1).fit(
            model, loader, loader, task=task, optimizer=torch.optim.SGD(model.parameters())
        )


def test_a_loader_without_batches_is_refused() -> None:
    model = make_model()
    with pytest.raises(DataError, match="has 0 samples"):
        make_trainer(max_epochs=1).fit(
            model, [], task=Classification(), optimizer=torch.optim.SGD(model.parameters())
        )

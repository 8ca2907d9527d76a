"""Updates whose gradient isn't finite: never applied, always counted, and too many in a row end the training."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from rootflow.checkpoint import Checkpoints, WeightKeeper
from rootflow.errors import DivergedError
from rootflow.tasks.classification import Classification
from rootflow.train.hooks import EvaluationReport
from rootflow.train.loop import StepReport
from rootflow.train.session import Session
from rootflow.train.trainer import FitResult, Trainer

generator = torch.Generator().manual_seed(0)
INPUTS = torch.randn(64, 6, generator=generator)
TARGETS = (INPUTS[:, 0] > 0).long() + (INPUTS[:, 1] > 0).long()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(6, 16)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.body(x).relu()))


class Spoiling:
    """Makes one element of the body's gradient NaN or infinite at some steps."""

    def __init__(self, steps: Sequence[int], value: float = torch.nan) -> None:
        self.steps = steps
        self.value = value

    def on_after_backward(self, session: Session) -> None:
        if session.step + 1 in self.steps:
            spoil(session.state.model, self.value)


def spoil(model: nn.Module, value: float = torch.nan) -> None:
    assert isinstance(model, Net)
    assert model.body.weight.grad is not None
    model.body.weight.grad[3, 2] = value


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=16)


PLAIN: dict[str, Any] = {"max_steps": 12, "device": "cpu", "precision": "fp32", "max_lr_halvings": 0}
"""Nothing goes back to an earlier state: that is what test_guard.py is about."""

MakeOptimizers = Callable[[Net], list[Optimizer]]
OPTIMIZERS: dict[str, MakeOptimizers] = {
    "sgd": lambda m: [SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)],
    "adamw": lambda m: [AdamW(m.parameters(), lr=0.01, weight_decay=0.1)],
    "two": lambda m: [SGD(m.body.parameters(), lr=0.1, momentum=0.9), AdamW(m.head.parameters(), lr=0.01)],
}


def fit(
    model: Net, optimizers: list[Optimizer], *hooks: object, val: Any = None, to: Any = None, **settings: Any
) -> FitResult:
    model.configure_optimizers = lambda: optimizers  # type: ignore[assignment]
    trainer = Trainer(**{**PLAIN, **settings})
    torch.manual_seed(1)
    checkpoints, keeper = to or (None, None)
    return trainer.fit(
        model, loader(), val, task=Classification(), hooks=hooks, checkpoints=checkpoints, keeper=keeper
    )


def fit_by_hand(
    model: Net, optimizers: list[Optimizer], bad_steps: Sequence[int], clip: float | None
) -> list[Any]:
    """Train by hand, all but `optimizer.step()` at the bad steps; return the optimizers' states before and after them."""
    torch.manual_seed(1)
    states = []
    epochs = itertools.chain.from_iterable(loader() for _ in range(3))
    for step, (inputs, targets) in enumerate(epochs, 1):
        for optimizer in optimizers:
            optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        if step in bad_steps:
            states.append(copy.deepcopy([optimizer.state_dict() for optimizer in optimizers]))
            continue
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        for optimizer in optimizers:
            optimizer.step()
    return states


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class OptimizerStates:
    """The states of optimizers after some steps."""

    def __init__(self, optimizers: list[Optimizer], steps: Sequence[int]) -> None:
        self.optimizers = optimizers
        self.steps = steps
        self.found: list[Any] = []

    def on_batch_end(self, report: StepReport) -> None:
        if report.step in self.steps:
            self.found.append(copy.deepcopy([optimizer.state_dict() for optimizer in self.optimizers]))


def same(one: Any, other: Any) -> bool:
    """Whether two nested states are bitwise equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_that_is_skipped_does_all_but_apply_its_gradient(
    name: str, clip: float | None, value: float
) -> None:
    bad_steps = (1, 5, 6)
    ours, theirs = Net(), Net()
    optimizers, others = OPTIMIZERS[name](ours), OPTIMIZERS[name](theirs)
    momenta = OptimizerStates(optimizers, bad_steps)
    result = fit(ours, optimizers, Spoiling(bad_steps, value), momenta, grad_clip_norm=clip)
    states = fit_by_hand(theirs, others, bad_steps, clip)
    assert (result.step, result.num_skipped) == (12, 3)
    assert weights(ours).isfinite().all()
    assert torch.equal(weights(ours), weights(theirs))
    assert same(momenta.found, states)
    assert momenta.found[-1][0]["state"]


def test_the_schedule_and_the_data_move_on_past_a_skipped_update() -> None:
    class Steps:
        def __init__(self) -> None:
            self.lrs: list[float] = []
            self.batches: list[Tensor] = []

        def on_batch_start(self, batch: Any) -> None:
            self.batches.append(batch[0])

        def on_batch_end(self, report: StepReport) -> None:
            self.lrs.append(report.lr)

    def steps(model: Net, *hooks: object) -> Steps:
        seen = Steps()
        optimizer = SGD(model.parameters(), lr=1.0)
        model.configure_optimizers = lambda: {  # type: ignore[assignment]
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 12),
                "interval": "step",
            },
        }
        trainer = Trainer(max_steps=12, device="cpu", precision="fp32")
        trainer.fit(model, loader(), task=Classification(), hooks=[seen, *hooks])
        return seen

    whole = steps(Net())
    for skipping in (steps(Net(), Spoiling([2, 3])), steps(BadLoss([2, 3], torch.nan))):
        assert len(set(skipping.lrs)) == 12
        assert whole.lrs == skipping.lrs
        assert all(map(torch.equal, whole.batches, skipping.batches))


def test_five_in_a_row_end_the_training_with_the_weights_before_them(tmp_path: Path) -> None:
    model, reference = Net(), Net()
    fit(reference, OPTIMIZERS["sgd"](reference), max_steps=6)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    keeper = WeightKeeper(tmp_path, every_s=0)
    with pytest.raises(DivergedError) as caught:
        fit(
            model,
            OPTIMIZERS["sgd"](model),
            Spoiling(range(7, 13)),
            to=(checkpoints, keeper),
            save_every="1 steps",
        )
    assert str(caught.value) == (
        "no gradient was finite in 5 updates, from step 7 to 11 (lr 0.1); none was applied. Not finite: body.weight. "
        "Lower optimizer.lr, set trainer.grad_clip_norm=1, or look for NaN in the data."
    )
    assert torch.equal(weights(model), weights(reference))
    saved = checkpoints.load()
    assert saved is not None
    assert saved.state["progress"]["step"] == 10  # a good state: the bad updates up to it changed nothing
    loaded = Net()
    loaded.load_state_dict(saved.state["model"])
    assert torch.equal(weights(loaded), weights(reference))


def test_four_in_a_row_and_a_good_one_go_on() -> None:
    model, theirs = Net(), Net()
    bad_steps = (2, 3, 4, 5, 7, 8, 9, 10)
    result = fit(model, OPTIMIZERS["adamw"](model), Spoiling(bad_steps))
    fit_by_hand(theirs, OPTIMIZERS["adamw"](theirs), bad_steps, None)
    assert (result.step, result.num_skipped, result.stop_reason) == (12, 8, "max_steps reached")
    assert torch.equal(weights(model), weights(theirs))


class BadLoss(Net):
    """Its loss isn't finite at some of its batches."""

    def __init__(self, batches: Sequence[int], value: float) -> None:
        super().__init__()
        self.batches = batches
        self.value = value
        self.num_batches = 0

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.num_batches += 1
        loss = F.cross_entropy(self(batch[0]), batch[1])
        return loss * (self.value if self.num_batches in self.batches else 1.0)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_is_skipped_and_stays_out_of_the_mean(
    value: float, clip: float | None
) -> None:
    model, theirs = BadLoss([3, 4], value), Net()
    losses: list[float] = []

    class Losses:
        def on_batch_end(self, report: StepReport) -> None:
            losses.append(float(report.loss))

    result = fit(model, OPTIMIZERS["sgd"](model), Losses(), max_steps=4, grad_clip_norm=clip)
    fit_by_hand(theirs, OPTIMIZERS["sgd"](theirs), [*range(3, 13)], clip)
    assert torch.equal(weights(model), weights(theirs))
    assert result.num_skipped == 2
    assert result.last["train/loss"] == pytest.approx(sum(losses[:2]) / 2, rel=1e-12)


def test_five_losses_in_a_row_that_are_not_finite_end_the_training() -> None:
    model = BadLoss(range(3, 13), torch.nan)
    before = Net()
    fit_by_hand(before, OPTIMIZERS["sgd"](before), [*range(3, 13)], None)
    with pytest.raises(
        DivergedError, match=r"from step 3 to 7 .*Not finite: body\.weight, body\.bias, head\."
    ):
        fit(model, OPTIMIZERS["sgd"](model), log_every=1000)
    assert torch.equal(weights(model), weights(before))


class Poison:
    """Makes a weight NaN after a step, as a fault of the hardware would."""

    def __init__(self, model: Net, step: int) -> None:
        self.model = model
        self.step = step

    @torch.no_grad()
    def on_batch_end(self, report: StepReport) -> None:
        if report.step == self.step:
            self.model.body.weight[0, 0] = torch.nan


def test_weights_that_are_not_finite_are_never_saved_and_never_the_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, best = Net(), []

    class Evaluations:
        def on_post_performance_check(self, report: EvaluationReport) -> None:
            best.append((report.step, report.is_best))

    checkpoints = Checkpoints(tmp_path / "checkpoints")
    keeper = WeightKeeper(tmp_path, every_s=0)
    result = fit(
        model,
        OPTIMIZERS["sgd"](model),
        Poison(model, 10),
        Evaluations(),
        val=loader(),
        to=(checkpoints, keeper),
        save_every="1 steps",
        eval_every="4 steps",
        monitor="val/loss",
    )
    assert best == [(4, True), (8, True), (12, False)]
    assert result.best["step"] == 8
    saved = checkpoints.load()
    assert saved is not None
    assert saved.step == 9
    assert "step 10 is not saved: weights are not finite" in caplog.text
    kept = Net()
    keeper.load("best", kept)
    assert weights(kept).isfinite().all()


def test_accuracy_of_weights_that_are_not_finite_is_never_the_best() -> None:
    """NaN outputs have an accuracy: that of the first class, which may be a good one."""
    model, best = Net(), []

    class Evaluations:
        def on_post_performance_check(self, report: EvaluationReport) -> None:
            best.append((report.step, report.is_best))

    val = DataLoader(TensorDataset(INPUTS, torch.zeros_like(TARGETS)), batch_size=16)
    fit(model, OPTIMIZERS["sgd"](model), Poison(model, 6), Evaluations(), val=val, max_steps=8)
    assert best[-1] == (8, False)


def test_skipped_updates_leave_the_buffers_of_batch_norm() -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    inputs = INPUTS.clone()
    inputs[20, 1] = torch.nan
    data = DataLoader(TensorDataset(inputs, TARGETS), batch_size=16)
    trainer = Trainer(max_steps=4, device="cpu", precision="fp32")
    result = trainer.fit(model, data, task=Classification(), optimizer=SGD(model.parameters(), lr=0.1))
    assert result.num_skipped == 1
    assert all(buffer.isfinite().all() for buffer in model.buffers())
    assert model[1].num_batches_tracked == 3

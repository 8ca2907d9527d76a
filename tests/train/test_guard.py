"""Trainings that diverge: they go back to their last good state, and on with half the learning rate."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import TensorDataset

from rootflow.checkpoint import Checkpoint, Checkpoints
from rootflow.errors import DivergedError
from rootflow.optim.build_scheduler import make_scheduler
from rootflow.optim.freezing import Freezing
from rootflow.optim.parameter_groups import Group
from rootflow.optim.scheduler_steps import SchedulerSteps
from rootflow.tracking.console import Console
from rootflow.tracking.provenance import Provenance
from rootflow.tracking.run_folder import RunFolder
from rootflow.tracking.settings import WandbSettings
from rootflow.tracking.wandb_mirror import WandbMirror
from rootflow.train.going_on import with_halved_lr, with_settings
from rootflow.train.guard import loss_limit
from rootflow.train.hooks import Adjustment, EvaluationReport
from rootflow.train.loop import Position, StepReport
from rootflow.train.recorder import Recorder
from rootflow.train.session import Session
from rootflow.train.trainer import FitResult, Trainer
from tests.optim.test_traces import MONITORED, NUM_EPOCHS, STEPS_PER_EPOCH, TRACES, WARMED
from tests.train.exactness import Case, Outcome, Stop, Training

Node = Mapping[str, Any]


class Schedule:
    """A scheduler over an optimizer, stepped as in a training of 3 epochs of 4 updates."""

    def __init__(self, node: Node) -> None:
        self.optimizer = SGD([nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
        built = make_scheduler(dict(node), self.optimizer, num_steps=12, steps_per_epoch=STEPS_PER_EPOCH)
        self.steps = SchedulerSteps(built)

    def state(self) -> dict[str, Any]:
        optimizer, scheduler = self.optimizer.state_dict(), self.steps.state_dict()
        progress = {"num_lr_halvings": 0}
        return copy.deepcopy({"progress": progress, "optimizer": {"0": optimizer}, "scheduler": scheduler})

    def load(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"]["0"])
        self.steps.load_state_dict(state["scheduler"])

    def rates(self, updates: range) -> Iterator[float]:
        """Yield the learning rate of each update, and make it."""
        for update in updates:
            yield float(self.optimizer.param_groups[0]["lr"])
            self.optimizer.step()
            if self.steps.after_step is not None:
                self.steps.after_step()
            if update % STEPS_PER_EPOCH == STEPS_PER_EPOCH - 1:
                self.steps.after_epoch()
                self.steps.after_evaluation(MONITORED[update // STEPS_PER_EPOCH])


NODES: dict[str, Node] = {name: node for name, (node, _) in TRACES.items()}
NODES |= {f"{name}, warmed up": {**node, "warmup": "6 steps"} for name, (node, _) in WARMED.items()}
NODES |= {
    "to a floor": {"name": "CosineAnnealingLR", "eta_min": 0.1},
    "restarts to a floor": {"name": "CosineAnnealingWarmRestarts", "T_0": 2, "eta_min": 0.1},
    "plateau with a floor": {"name": "ReduceLROnPlateau", "patience": 0, "min_lr": 0.4},
    "one cycle in three phases": {"name": "OneCycleLR", "max_lr": 0.7, "three_phase": True},
    "a decay of more than the rate": {
        "name": "warmup_decay", "warmup": "2 steps", "also": {"momentum": {"final": 0.5}},
    },
}  # fmt: skip


@pytest.mark.parametrize("num_before", [0, 1, 4, 7, 8])
@pytest.mark.parametrize("name", NODES)
def test_a_halved_schedule_is_at_every_update_half_of_what_it_was(name: str, num_before: int) -> None:
    schedule, halved, whole = Schedule(NODES[name]), Schedule(NODES[name]), Schedule(NODES[name])
    num_updates = NUM_EPOCHS * STEPS_PER_EPOCH
    list(schedule.rates(range(num_before)))
    state = schedule.state()
    before = copy.deepcopy(state)
    halved.load(with_halved_lr(state))
    assert state == before
    rest = list(halved.rates(range(num_before, num_updates)))
    expected = [rate / 2 for rate in whole.rates(range(num_updates))][num_before:]
    assert rest == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_rates_that_are_tensors_are_halved_and_what_only_looks_like_one_is_not() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = AdamW([weight], lr=torch.tensor(0.5), capturable=False)
    group = {**optimizer.state_dict()["param_groups"][0], "lr_decay": 0.3, "use_lr": True, "swa_lr": 3}
    state = {"progress": {"num_lr_halvings": 1}, "optimizer": {"0": {"state": {}, "param_groups": [group]}}}
    found = with_halved_lr({**state, "scheduler": {"schedulers": []}})
    assert found["progress"] == {"num_lr_halvings": 2}
    (halved,) = found["optimizer"]["0"]["param_groups"]
    assert {key for key in group if group[key] is not halved[key]} == {"lr", "swa_lr", "betas", "params"}
    assert (halved["lr"], halved["swa_lr"]) == (0.25, 1.5)
    assert (halved["betas"], halved["params"]) == (group["betas"], group["params"])
    assert group["lr"] == 0.5


generator = torch.Generator().manual_seed(0)
INPUTS = torch.randn(64, 4, generator=generator)
LINE = TensorDataset(INPUTS, INPUTS @ torch.tensor([[1.0], [-1.0], [0.5], [2.0]]))
CURVATURE = float(torch.linalg.eigvalsh(2 * INPUTS.T @ INPUTS / 64)[-1])
"""Of the mean squared error over all samples: above 2 / CURVATURE gradient descent diverges."""


class Told:
    """Notes what a training changed, and how it ends its updates and evaluations."""

    def __init__(self) -> None:
        self.adjustments: list[Adjustment] = []
        self.evaluated: list[int] = []
        self.steps: list[int] = []

    def on_adjustment(self, adjustment: Adjustment) -> None:
        self.adjustments.append(adjustment)

    def on_post_performance_check(self, report: EvaluationReport) -> None:
        self.evaluated.append(report.step)

    def on_batch_end(self, report: StepReport) -> None:
        self.steps.append(report.step)


class Losses:
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_batch_end(self, report: StepReport) -> None:
        self.values.append(float(report.loss))


def make_line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 1, bias=False)


def descend(lr: float, *hooks: object, model: nn.Module | None = None, **settings: Any) -> FitResult:
    """Fit a line by gradient descent, one update an epoch."""
    model = model or make_line()
    given = {"max_epochs": 120, "batch_size": 64, "device": "cpu", "precision": "fp32", "log_every": 10}
    optimizer = {"name": "SGD", "lr": lr * 2 / CURVATURE}
    trainer = Trainer(**{**given, **settings})
    return trainer.fit(model, LINE, LINE, loss="mse_loss", optimizer=optimizer, hooks=hooks)


@pytest.mark.parametrize("log_every", [1, 10, 1000])
def test_a_learning_rate_that_diverges_is_halved_until_it_does_not(log_every: int) -> None:
    told = Told()
    result = descend(2.4, told, log_every=log_every, eval_every="10 steps")
    assert [(a.key, a.old * CURVATURE / 2, a.new * CURVATURE / 2) for a in told.adjustments] == [
        ("optimizer.lr", pytest.approx(2.4), pytest.approx(1.2)),
        ("optimizer.lr", pytest.approx(1.2), pytest.approx(0.6)),
    ]
    assert result.last["val/loss"] < 1e-6
    assert (result.step, result.stop_reason) == (120, "max_epochs reached")


def test_a_loss_that_stays_high_for_20_updates_is_a_divergence() -> None:
    told, losses = Told(), Losses()
    descend(1.2, told, losses, log_every=1, eval_every="3 steps")
    (adjustment,) = told.adjustments
    limit = 3 * min(sum(losses.values[:5]) / 5, 2 * losses.values[0])
    first_high = next(step for step, loss in enumerate(losses.values, 1) if loss > limit)
    assert adjustment.step == first_high + 19
    good_step = (first_high - 1) // 3 * 3
    assert adjustment.reason.startswith(
        f"the loss was above {limit:.3g} in 20 updates; back to step {good_step} "
    )
    assert told.steps == [*range(1, adjustment.step), *range(good_step + 1, 121)]


def test_without_it_the_training_ends_as_diverged() -> None:
    told = Told()
    with pytest.raises(DivergedError, match=r"^no gradient was finite in 5 updates, from step "):
        descend(2.4, told, max_lr_halvings=0)
    assert told.adjustments == []


def test_the_learning_rate_is_halved_so_often_and_no_more() -> None:
    told = Told()
    with pytest.raises(DivergedError, match=r"^no gradient was finite in 5 updates, from step "):
        descend(100.0, told)
    assert [a.old / a.new for a in told.adjustments] == [2.0] * 3
    told = Told()
    with pytest.raises(DivergedError, match=r"^no gradient was finite in 5 updates, from step "):
        descend(10.0, told, max_lr_halvings=1)
    assert len(told.adjustments) == 1


def test_a_loss_that_is_high_never_ends_a_training() -> None:
    """It is none of the three that did: another loss for 60 updates, which NaN gradients don't follow."""

    class High(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.num_passes = make_line(), 0

        def training_step(self, batch: Sequence[Tensor]) -> Tensor:
            self.num_passes += 1
            loss = (self.line(batch[0]) - batch[1]).square().mean()
            return loss * 0.0 + (1.0 if self.num_passes <= 5 else 5.0)

    told = Told()
    trainer = Trainer(max_epochs=120, batch_size=64, device="cpu", precision="fp32", log_every=1)
    result = trainer.fit(High(), LINE, optimizer="sgd", hooks=[told])
    assert len(told.adjustments) == 3
    assert result.step == 120


def position(first: Sequence[float]) -> Position:
    return Position(first=list(first))


def test_a_loss_is_high_above_three_times_the_first_ones_but_never_below_1() -> None:
    assert loss_limit(position([2.0, 2.0, 2.0, 3.0, 3.5])) == 7.5
    assert loss_limit(position([1e-6] * 5)) == 1.0
    assert loss_limit(position([2.0, 9.0, 9.0, 9.0])) == 6.0
    for first in ([], *([2.0, 2.0, odd, 2.0, 2.0] for odd in (0.0, -1.0, math.nan, math.inf))):
        assert loss_limit(position(first)) == math.inf


@pytest.mark.parametrize(
    "case",
    [
        Case(ema_decay=0.9, micro_batch_size=5),
        Case("own", eval_every="4 steps"),
        Case("unknown"),
        Case(max_epochs="auto", patience=2, ema_decay="auto"),
        Case(optimizer="LBFGS"),
    ],
    ids=str,
)
def test_a_training_that_does_not_diverge_is_bitwise_the_same_with_a_guard_and_without(
    case: Case, tmp_path: Path
) -> None:
    without = Training(replace(case, max_lr_halvings=0), tmp_path / "without").begin()
    assert Training(case, tmp_path / "with").begin() == without


BLOWN_UP = Case(max_epochs=8, blown_up=(15,))
TWICE = replace(BLOWN_UP, blown_up=(15, 15), ema_decay=0.9)
"""From one state: nothing was good in between."""


@pytest.mark.parametrize(
    ("case", "good_step"),
    [
        (BLOWN_UP, 12),
        (replace(BLOWN_UP, data="own", ema_decay=0.9, micro_batch_size=5), 14),
        (replace(BLOWN_UP, data="ready", scheduler="CosineAnnealingLR"), 14),
        (replace(BLOWN_UP, data="tensors", eval_every="4 steps", optimizer="sgd"), 12),
        (replace(BLOWN_UP, data="unknown", scheduler=None), 12),
        (TWICE, 12),
    ],
    ids=str,
)
def test_what_follows_is_bitwise_a_training_from_that_state_with_half_the_learning_rate(
    case: Case, good_step: int, tmp_path: Path
) -> None:
    told = Told()
    guarded = Training(case, tmp_path / "guarded", [told]).begin()
    assert len(told.adjustments) == len(case.blown_up)
    for adjustment in told.adjustments:
        assert (adjustment.step, f"back to step {good_step} " in adjustment.reason) == (34, True)

    healthy = replace(case, blown_up=())
    Training(healthy, tmp_path / "by hand", [Stop(f"step {good_step}")]).begin()
    saved = Checkpoints(tmp_path / "by hand").load()
    assert saved is not None
    by_hand = Training(healthy, tmp_path / "by hand").resume(scaled_by_hand(saved, 0.5 ** len(case.blown_up)))

    assert lines_from(good_step + 1, guarded) == lines_from(good_step + 1, by_hand)
    evaluated = [re.search(r"'val/accuracy': '(.*?)'", line) for line in guarded.log]
    assert float(guarded.state["progress.best.val/accuracy"]) == max(
        float.fromhex(found[1]) for found in evaluated if found
    )
    odd = ("num_lr_halvings", "best", "stopping.best")
    assert without(odd, guarded.state) == without(odd, by_hand.state)
    num_samples = 100 if case.data in ("own", "ready") else 96
    assert guarded.state["hooks.Counting.num_samples"] == str(8 * num_samples)


def scaled_by_hand(saved: Checkpoint, scale: float) -> Checkpoint:
    state = copy.deepcopy(saved.state)
    for group in state["optimizer"]["0"]["param_groups"]:
        for key in ("lr", "initial_lr"):
            if key in group:
                group[key] *= scale
    for schedule in state["scheduler"]["schedulers"]:
        if "base_lrs" in schedule:
            schedule["base_lrs"] = [rate * scale for rate in schedule["base_lrs"]]
            schedule["_last_lr"] = [rate * scale for rate in schedule["_last_lr"]]
    return replace(saved, state=state)


def lines_from(step: int, outcome: Outcome) -> list[str]:
    """Return what was logged since a step was last made, but for what was the best: that never goes back."""
    start = max(i for i, line in enumerate(outcome.log) if line.startswith(f"step {step},"))
    return [re.sub(" (True|False)$", "", line) for line in outcome.log[start:]]


def without(odd: Sequence[str], state: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in state.items() if not any(part in name for part in odd)}


def test_the_end_of_a_training_is_saved_as_it_is_also_in_doubt(tmp_path: Path) -> None:
    ended = Training(Case(max_epochs=3, blown_up=(17,)), tmp_path).begin()
    assert (ended.state["progress.step"], ended.state["progress.stop_reason"]) == (
        "18",
        "'max_epochs reached'",
    )


class SpoilingAtFirst:
    """Gradients that aren't finite at some steps, as long as the learning rate wasn't halved."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = steps

    def on_after_backward(self, session: Session) -> None:
        if session.step + 1 in self.steps and not session.state.num_lr_halvings:
            for parameter in session.state.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(torch.nan)


def test_gradients_that_are_not_finite_lead_back_to_before_them(tmp_path: Path) -> None:
    told, case = Told(), Case(eval_every="5 steps")
    ended = Training(case, tmp_path, [SpoilingAtFirst(range(9, 99)), told]).begin()
    assert [(a.step, a.reason.partition(" with")[0]) for a in told.adjustments] == [
        (13, "no gradient was finite in 5 updates, from step 9 to 13 (lr 0.000461); back to step 5")
    ]
    assert told.evaluated == [5, 10, 10, 15, 20, 24]
    assert (ended.state["progress.step"], ended.state["skipped.num_skipped"]) == ("24", "0")


def test_an_optimizer_with_a_closure_goes_back_like_any_other() -> None:
    told, model = Told(), make_line()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=2)
    trainer = Trainer(max_epochs=20, batch_size=64, device="cpu", precision="fp32")
    hooks = [SpoilingAtFirst(range(8, 13)), told]
    result = trainer.fit(model, LINE, LINE, loss="mse_loss", optimizer=optimizer, hooks=hooks)
    assert [(a.step, a.old, a.new) for a in told.adjustments] == [(12, 0.5, 0.25)]
    assert told.steps == [*range(1, 12), *range(8, 21)]
    assert result.last["val/loss"] < 1e-3


def test_all_optimizers_that_a_model_configures_are_halved() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = make_line(), make_line()

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.other(x)

        def configure_optimizers(self) -> Any:
            made = [SGD(self.one.parameters(), 0.1), AdamW(self.other.parameters(), 0.2)]
            schedulers: list[LRScheduler] = [torch.optim.lr_scheduler.StepLR(o, 1000) for o in made]
            self.made = made
            return made, schedulers

    model, told = Two(), Told()
    trainer = Trainer(max_epochs=20, batch_size=64, device="cpu", precision="fp32")
    trainer.fit(model, LINE, LINE, loss="mse_loss", hooks=[SpoilingAtFirst(range(5, 10)), told])
    assert [optimizer.param_groups[0]["lr"] for optimizer in model.made] == [0.05, 0.1]
    assert [(a.old, a.new) for a in told.adjustments] == [(0.1, 0.05)]


class Poison:
    """Makes a weight NaN after a step, each time that it comes."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_run_start(self, session: Session) -> None:
        self.model: Any = session.state.model

    @torch.no_grad()
    def on_batch_end(self, report: StepReport) -> None:
        if report.step == self.step:
            self.model.weight[0, 0] = torch.nan


def test_weights_that_are_not_finite_lead_back_before_they_are_judged() -> None:
    told = Told()
    result = descend(0.2, told, Poison(7), max_epochs=8, monitor="train/loss")
    assert [a.reason.partition(" with")[0] for a in told.adjustments] == [
        "weights are not finite; back to step 6"
    ] * 3
    assert told.evaluated == [1, 2, 3, 4, 5, 6, 7, 8]  # that of step 7 only when nothing else was left
    assert result.best["step"] == 6


class Measuring(nn.Linear):
    """Measures what it is told to, evaluation by evaluation."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__(4, 1)
        self.values = iter(values)

    def check_performance(self) -> dict[str, float]:
        return {"score": next(self.values), "other": math.nan}


@pytest.mark.parametrize(
    ("values", "backs"),
    [
        ([1.0, math.nan, 2.0, 3.0], ["val/score is nan; back to step 1"]),
        ([math.nan, math.nan, 2.0], []),
        ([1.0, math.inf, math.inf, math.inf, math.inf, 1.0], ["val/score is inf; back to step 1"] * 3),
    ],
)
def test_a_monitored_value_counts_once_it_has_been_finite(values: list[float], backs: list[str]) -> None:
    told = Told()
    descend(0.1, told, model=Measuring(values), max_epochs=3, monitor="val/score", monitor_mode="max")
    assert [a.reason.partition(" with")[0] for a in told.adjustments] == backs


def test_without_memory_for_a_copy_the_training_goes_on_and_a_divergence_ends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Big:
        def state_dict(self) -> dict[str, Any]:
            raise MemoryError

        def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

        def on_run_end(self) -> None: ...

    assert descend(0.2, Big(), max_epochs=5).step == 5
    assert caplog.messages == ["no copy of the training fits into memory: if it diverges, it ends"]
    with pytest.raises(DivergedError):
        descend(0.2, Big(), SpoilingAtFirst(range(8, 13)))


def test_a_state_that_the_optimizer_no_longer_takes_is_a_divergence_in_the_end() -> None:
    class Unfreezing:
        def on_epoch_start(self, session: Session) -> None:
            if session.epoch == 3:
                (optimizer,) = session.state.optimizers
                optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})

    with pytest.raises(
        DivergedError, match=r"^no gradient was .* \(lr .*\), and the last good state can't be "
    ):
        descend(0.2, Unfreezing(), SpoilingAtFirst(range(3, 13)))


def test_data_that_cannot_begin_anew_is_never_gone_back_in() -> None:
    model, told = make_line(), Told()
    batches = iter([LINE[:]] * 40)
    trainer = Trainer(max_steps=40, device="cpu", precision="fp32", eval_every="5 steps")
    with pytest.raises(DivergedError):
        trainer.fit(
            model, batches, loss="mse_loss", optimizer="sgd", hooks=[SpoilingAtFirst(range(8, 20)), told]
        )
    assert told.adjustments == []


def test_an_epoch_that_is_gone_back_into_is_announced_again() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    trained: list[tuple[int, int, bool]] = []

    class Epochs:
        def on_run_start(self, session: Session) -> None:
            self.session = session

        def on_batch_start(self) -> None:
            is_trained = next(model.parameters()).requires_grad
            trained.append((self.session.epoch, self.session.step + 1, is_trained))

    freezing = Freezing(model, {"0.*": Group(unfreeze_at=2)})
    hooks = [freezing, Epochs(), SpoilingAtFirst(range(7, 12))]
    trainer = Trainer(max_epochs=2, batch_size=8, device="cpu", precision="fp32", eval_every="6 steps")
    trainer.fit(model, LINE, LINE, loss="mse_loss", optimizer=SGD(model.parameters(), 0.01), hooks=hooks)
    first, second = [(1, n, False) for n in range(1, 9)], [(2, n, True) for n in range(9, 17)]
    assert trained == [*first, *second[:3], *first[6:], *second]


def test_a_crash_after_it_went_back_goes_on_from_there(tmp_path: Path) -> None:
    saved: list[tuple[int, int]] = []

    class Saved:
        def on_checkpoint(self) -> None:
            found = Checkpoints(tmp_path).load()
            assert found is not None
            saved.append((found.step, found.state["progress"]["num_lr_halvings"]))

    made: dict[str, Any] = {"loss": "mse_loss", "optimizer": "sgd", "checkpoints": Checkpoints(tmp_path)}
    hooks = [SpoilingAtFirst(range(8, 13)), Saved()]
    trainer = Trainer(max_epochs=8, batch_size=32, device="cpu", precision="fp32", save_every="11 steps")
    trainer.fit(make_line(), LINE, LINE, hooks=hooks, **made)
    assert saved == [(6, 0), (6, 1), (11, 1), (16, 1)]  # at step 11 it was in doubt the first time


def test_a_model_that_was_compiled_meanwhile_stays_so(tmp_path: Path) -> None:
    found = []

    class Compiled:
        def on_run_start(self, session: Session) -> None:
            self.session = session

        def on_adjustment(self) -> None:
            found.append((self.session.step, self.session.state.is_compiled))

    case = Case(max_epochs=6, eval_every="5 steps", blown_up=(9,), is_compiled_later=True)
    Training(case, tmp_path, [Compiled()]).begin()
    assert found == [(5, True)]


def test_a_new_length_keeps_the_halvings_and_a_new_learning_rate_does_not() -> None:
    def built(lr: float, num_steps: int) -> tuple[SGD, LRScheduler]:
        optimizer = SGD([nn.Parameter(torch.ones(1))], lr=lr)
        scheduler = make_scheduler("linear", optimizer, num_steps=num_steps, steps_per_epoch=4)
        assert scheduler is not None
        return optimizer, scheduler

    optimizer, scheduler = built(1.0, 12)
    saved = {
        "progress": {"num_lr_halvings": 0},
        "optimizer": {"0": optimizer.state_dict()},
        "scheduler": {"schedulers": [scheduler.state_dict()]},
    }
    state = with_halved_lr(with_halved_lr(saved))
    longer = with_settings(state, *built(1.0, 24))
    assert longer["optimizer"]["0"]["param_groups"][0]["initial_lr"] == 0.25
    assert longer["progress"]["num_lr_halvings"] == 2
    other = with_settings(state, *built(0.9, 12))
    assert other["optimizer"]["0"]["param_groups"][0]["initial_lr"] == 0.9
    assert other["progress"]["num_lr_halvings"] == 0


def test_a_recorded_run_says_what_it_did_and_moves_the_rows_that_do_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder.create(
        tmp_path, "run", config={}, config_yaml="", provenance=Provenance(versions={}, hardware={})
    ) as folder:
        mirror = WandbMirror(WandbSettings(mode="disabled"), folder.path, say=print)
        recorder = Recorder(folder, mirror, Console(live=False), log_every=2)
        fit = descend(0.2, SpoilingAtFirst(range(8, 13)), recorder, max_epochs=14, eval_every="3 steps")
        recorder.end(fit, {})
    rows = [json.loads(line) for line in folder.metrics_jsonl.read_text().splitlines()]
    cut = [json.loads(line) for line in (folder.path / "metrics.cut-1.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 6, 8, 9, 10, 12, 12, 14, 14]
    assert [row["step"] for row in cut] == [8, 9, 10]
    record = json.loads(folder.run_json.read_text())
    (adjustment,) = record["adjustments"]
    line = adjustment.pop("reason")
    rate = 0.4 / CURVATURE
    assert adjustment == {"step": 12, "key": "optimizer.lr", "old": rate, "new": rate / 2}
    assert line == (
        f"no gradient was finite in 5 updates, from step 8 to 12 (lr {rate:.3g}); back to step 6 with half the "
        f"learning rate, {rate / 2:.4g}"
    )
    assert f"step 12: {line}\n" in capsys.readouterr().out


def test_a_smaller_micro_batch_is_recorded_for_a_resume(tmp_path: Path) -> None:
    failures = itertools.count()

    class Limited(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 32 and self.training and next(failures) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    with RunFolder.create(
        tmp_path, "run", config={}, config_yaml="", provenance=Provenance(versions={}, hardware={})
    ) as folder:
        folder.update(discovered={"trainer.micro_batch_size": {"value": 64, "reason": "fits"}})
        mirror = WandbMirror(WandbSettings(mode="disabled"), folder.path, say=print)
        recorder = Recorder(folder, mirror, Console(live=False), log_every=2)
        hooks = (recorder, SpoilingAtFirst(range(8, 13)))
        descend(0.2, *hooks, model=Limited(4, 1), max_epochs=14, eval_every="3 steps")
    record = json.loads(folder.run_json.read_text())
    line = "out of memory at 64 samples; micro batch 32 from here on, the update was run again"
    found = {"value": 32, "reason": f"step 2: {line}"}
    assert record["discovered"] == {"trainer.micro_batch_size": found}
    assert [a["key"] for a in record["adjustments"]] == ["trainer.micro_batch_size", "optimizer.lr"]
    assert next(failures) == 2  # after going back no pass has more than 32 samples

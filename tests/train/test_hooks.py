"""What is called when, as whole traces; and the parts of the loop that are there to be overridden."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rootflow.checkpoint import Checkpoints
from rootflow.errors import ConfigError
from rootflow.train.hooks import EvaluationReport, Events
from rootflow.train.loop import StepReport
from rootflow.train.objective import Logs
from rootflow.train.session import Session
from rootflow.train.state import TrainState
from rootflow.train.trainer import FitResult, Trainer

NAMES = [
    "on_run_start",
    "on_epoch_start",
    "on_batch_start",
    "on_after_backward",
    "on_batch_end",
    "on_pre_performance_check",
    "on_post_performance_check",
    "on_epoch_end",
    "on_adjustment",
    "on_pre_checkpoint",
    "on_checkpoint",
    "on_run_end",
    "on_exception",
]
STEP = ["on_batch_start", "forward in training", "on_after_backward", "on_batch_end"]
EVALUATION = [
    "on_pre_performance_check",
    "forward in evaluation",
    "forward in evaluation",
    "on_post_performance_check",
]
EPOCH = ["on_epoch_start", *STEP, *STEP, *STEP, *EVALUATION, "on_epoch_end"]
RUN = ["on_run_start", *EPOCH, *EPOCH, "on_run_end"]


class Traced(nn.Module):
    """A model that notes its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.trace: list[str] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.trace.append(f"forward in {'training' if self.training else 'evaluation'}")
        return self.layer(inputs)  # type: ignore[no-any-return]


class TracedByItself(Traced):
    """Has all hooks itself; each takes nothing."""

    def on_run_start(self) -> None:
        self.trace.append("on_run_start")

    def on_epoch_start(self) -> None:
        self.trace.append("on_epoch_start")

    def on_batch_start(self) -> None:
        self.trace.append("on_batch_start")

    def on_after_backward(self) -> None:
        self.trace.append("on_after_backward")

    def on_batch_end(self) -> None:
        self.trace.append("on_batch_end")

    def on_pre_performance_check(self) -> None:
        self.trace.append("on_pre_performance_check")

    def on_post_performance_check(self) -> None:
        self.trace.append("on_post_performance_check")

    def on_epoch_end(self) -> None:
        self.trace.append("on_epoch_end")

    def on_checkpoint(self) -> None:
        self.trace.append("on_checkpoint")

    def on_run_end(self) -> None:
        self.trace.append("on_run_end")

    def on_exception(self) -> None:
        self.trace.append("on_exception")


class Watching:
    """A hook that notes every event, with what it was given."""

    def __init__(self, trace: list[str], *, prefix: str = "") -> None:
        self.trace = trace
        self.prefix = prefix
        self.given: dict[str, list[Any]] = {name: [] for name in NAMES}

    def __getattr__(self, name: str) -> Any:
        if name not in NAMES:
            raise AttributeError(name)

        def note(what: Any) -> None:
            self.trace.append(f"{self.prefix}{name}")
            self.given[name].append(what)

        return note


def make_loader(num_batches: int, seed: int = 0) -> DataLoader[tuple[Tensor, ...]]:
    inputs = torch.randn(4 * num_batches, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(inputs, inputs.sum(dim=1, keepdim=True)), batch_size=4)


def fit(model: nn.Module, trainer: Trainer | None = None, **given: Any) -> FitResult:
    trainer = trainer or make_trainer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return trainer.fit(model, make_loader(3), make_loader(2), loss="mse_loss", optimizer=optimizer, **given)


def make_trainer(kind: type[Trainer] = Trainer, **settings: Any) -> Trainer:
    return kind(**{"max_epochs": 2, "device": "cpu", "precision": "fp32", **settings})


def test_a_models_own_methods_are_called_in_this_order() -> None:
    model = TracedByItself()
    fit(model)
    assert model.trace == RUN


def test_the_methods_of_a_hook_are_called_in_this_order_with_what_is_promised() -> None:
    model = Traced()
    hook = Watching(model.trace)
    fit(model, hooks=[hook])
    assert model.trace == RUN
    kinds = {name: {type(what) for what in given} for name, given in hook.given.items() if given}
    assert kinds == {
        "on_run_start": {Session},
        "on_epoch_start": {Session},
        "on_batch_start": {list},
        "on_after_backward": {Session},
        "on_batch_end": {StepReport},
        "on_pre_performance_check": {Session},
        "on_post_performance_check": {EvaluationReport},
        "on_epoch_end": {Session},
        "on_run_end": {Session},
    }
    assert [(r.step, r.epoch, r.num_samples) for r in hook.given["on_batch_end"]] == [
        (1, 1, 4), (2, 1, 4), (3, 1, 4), (4, 2, 4), (5, 2, 4), (6, 2, 4)
    ]  # fmt: skip
    assert [(r.step, r.epoch, set(r.metrics)) for r in hook.given["on_post_performance_check"]] == [
        (3, 1, {"train/loss", "val/loss"}), (6, 2, {"train/loss", "val/loss"})
    ]  # fmt: skip


def test_at_each_event_the_model_comes_before_the_hooks_in_their_order() -> None:
    model = TracedByItself()
    fit(model, hooks=[Watching(model.trace, prefix="first "), Watching(model.trace, prefix="second ")])
    expected = []
    for name in RUN:
        own = name.startswith("on_")
        expected += [name, f"first {name}", f"second {name}"] if own else [name]
    assert model.trace == expected


def test_methods_of_a_model_may_take_what_the_event_is_about() -> None:
    class Asking(Traced):
        def on_batch_end(self, report: StepReport) -> None:
            self.trace.append(f"step {report.step}")

        def on_epoch_end(self, state: TrainState) -> None:
            self.trace.append(f"epoch {state.epoch}")

    model = Asking()
    fit(model, hooks=[])
    assert [event for event in model.trace if "forward" not in event] == [
        "step 1", "step 2", "step 3", "epoch 1", "step 4", "step 5", "step 6", "epoch 2"
    ]  # fmt: skip


def test_a_model_trains_before_an_evaluation_is_announced_and_after_it_was_told() -> None:
    class Modes:
        def __init__(self, model: nn.Module) -> None:
            self.model = model
            self.seen: list[bool] = []

        def on_pre_performance_check(self) -> None:
            self.seen.append(self.model.training)

        def on_post_performance_check(self) -> None:
            self.seen.append(self.model.training)

    model = Traced()
    modes = Modes(model)
    fit(model, hooks=[modes])
    assert modes.seen == [True, True, True, True]


def test_gradients_are_there_after_the_backward_pass_and_not_applied() -> None:
    class Looking:
        def __init__(self) -> None:
            self.moved: list[bool] = []
            self.has_gradients: list[bool] = []

        def on_batch_start(self) -> None:
            self.before = model.layer.weight.detach().clone()

        def on_after_backward(self) -> None:
            self.moved.append(not torch.equal(model.layer.weight, self.before))
            self.has_gradients.append(bool(model.layer.weight.grad is not None))

        def on_batch_end(self) -> None:
            self.moved.append(not torch.equal(model.layer.weight, self.before))

    model, looking = Traced(), Looking()
    fit(model, hooks=[looking])
    assert looking.moved == [False, True] * 6
    assert looking.has_gradients == [True] * 6


def test_checkpoints_are_told_with_their_paths_between_updates_and_at_the_end(tmp_path: Path) -> None:
    model = Traced()
    hook = Watching(model.trace)
    fit(model, make_trainer(save_every="2 steps"), hooks=[hook], checkpoints=Checkpoints(tmp_path))
    assert [path.name for path in hook.given["on_checkpoint"]][:3] == [
        "step-00000002", "step-00000004", "step-00000006"
    ]  # fmt: skip
    events = [event for event in model.trace if event in ("on_batch_end", "on_checkpoint", "on_run_end")]
    assert events == [
        "on_batch_end", "on_batch_end", "on_checkpoint", "on_batch_end", "on_batch_end", "on_checkpoint",
        "on_batch_end", "on_batch_end", "on_checkpoint", "on_checkpoint", "on_run_end",
    ]  # fmt: skip


RARE = ("on_exception", "on_adjustment", "on_pre_checkpoint", "on_checkpoint")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RARE])
def test_an_exception_anywhere_is_told_once_and_goes_on(name: str) -> None:
    class Failing(Watching):
        def __getattr__(self, wanted: str) -> Any:
            note = super().__getattr__(wanted)
            return note if wanted != name else self.fail

        def fail(self) -> None:
            raise ValueError(f"in {name}")

    model = Traced()
    hook = Failing(model.trace)
    with pytest.raises(ValueError, match=f"^in {name}") as raised:
        fit(model, hooks=[hook])
    assert hook.given["on_exception"] == [raised.value]
    assert model.trace[-1] == "on_exception"
    assert "on_run_end" not in model.trace


def test_a_hook_that_nothing_would_call_is_refused_with_the_names_there_are() -> None:
    class Misspelt:
        def on_epoch_ends(self) -> None: ...

    with pytest.raises(ConfigError) as refused:
        fit(Traced(), hooks=[Misspelt()])
    assert str(refused.value) == (
        "the hook Misspelt has no method that is called; there are " + ", ".join(NAMES) + "."
    )


def test_an_event_that_nobody_watches_has_nobody_to_call() -> None:
    class One:
        on_epoch_start = None

        def on_batch_end(self) -> None: ...

    events = Events.of(nn.Linear(1, 1), [One()])
    assert {name: len(calls) for name, calls in vars(events).items() if calls} == {"batch_end": 1}


def test_the_state_of_a_hook_goes_through_a_checkpoint(tmp_path: Path) -> None:
    class Counting:
        def __init__(self) -> None:
            self.num_steps = 0

        def on_batch_end(self, report: StepReport) -> None:
            self.num_steps += 1
            if report.step == stop_at:
                raise KeyboardInterrupt

        def state_dict(self) -> dict[str, int]:
            return {"num_steps": self.num_steps}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.num_steps = state["num_steps"]

    checkpoints, stop_at = Checkpoints(tmp_path), 5
    with pytest.raises(KeyboardInterrupt):
        fit(Traced(), make_trainer(save_every="4 steps"), hooks=[Counting()], checkpoints=checkpoints)
    counting, stop_at = Counting(), 0
    fit(Traced(), hooks=[counting], resume=checkpoints.load())
    assert counting.num_steps == 6


class TwiceAStep(Trainer):
    """Applies every batch twice."""

    def train_step(self, session: Session, batch: Any) -> tuple[Tensor, int, Logs]:
        super().train_step(session, batch)
        return super().train_step(session, batch)


class NamingItsEpochs(Trainer):
    """Says what it does around the parts of the class."""

    def train_epoch(self, session: Session) -> None:
        trace_of(session).append("my train_epoch")
        super().train_epoch(session)

    def val_epoch(self, session: Session) -> Mapping[str, float]:
        trace_of(session).append("my val_epoch")
        return super().val_epoch(session)


class Measuring(Trainer):
    """Measures by itself, and does nothing else."""

    def val_epoch(self, session: Session) -> Mapping[str, float]:
        assert not torch.equal(session.state.model.layer.weight, torch.zeros(()))  # type: ignore[union-attr]
        return {"loss": 1 / session.epoch}


def trace_of(session: Session) -> list[str]:
    model = session.state.model
    assert isinstance(model, Traced)
    return model.trace


def test_an_own_train_step_is_the_one_that_is_called() -> None:
    twice, once = Traced(), Traced()
    once.load_state_dict(twice.state_dict())
    assert fit(twice, make_trainer(TwiceAStep)).step == 6
    assert twice.trace.count("forward in training") == 12
    optimizer = torch.optim.SGD(once.parameters(), lr=0.01)
    for _ in range(2):
        for inputs, targets in make_loader(3):
            for _ in range(2):
                optimizer.zero_grad()
                nn.functional.mse_loss(once(inputs), targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    assert torch.equal(twice.layer.weight, once.layer.weight)


def test_own_epochs_stand_around_those_of_the_class() -> None:
    model = Traced()
    fit(model, make_trainer(NamingItsEpochs))
    epoch = ["my train_epoch", *["forward in training"] * 3, "my val_epoch", *["forward in evaluation"] * 2]
    assert model.trace == epoch * 2


def test_an_own_val_epoch_only_measures() -> None:
    model = Traced()
    result = fit(model, make_trainer(Measuring))
    assert model.trace == ["forward in training"] * 6
    assert (result.step, result.stop_reason) == (6, "max_epochs reached")
    assert result.best["val/loss"] == 0.5

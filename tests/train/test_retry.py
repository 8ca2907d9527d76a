"""Updates that run out of memory: made again with smaller micro batches, as if nothing had happened."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.data import DataLoader

from rootflow.checkpoint import Checkpoints
from rootflow.errors import RunError
from rootflow.tasks.task import LossSum
from rootflow.train.hooks import Adjustment
from rootflow.train.session import Session
from rootflow.train.trainer import FitResult, Trainer

BATCH_SIZE, NUM_STEPS = 32, 9
generator = torch.Generator().manual_seed(0)
INPUTS = torch.randn(96, 6, generator=generator)
TARGETS = (INPUTS[:, 0] > 0).long() + (INPUTS[:, 1] > 0).long()
SAMPLES = list(zip(INPUTS, TARGETS, strict=True))


class Memory:
    """What there is of it: passes of more samples fail, at some steps of the training or at all."""

    def __init__(self, limit: int, *, place: str = "forward", steps: Sequence[int] | None = None) -> None:
        self.limit = limit
        self.place = place
        self.steps = steps
        self.session: Session
        self.num_failures = 0

    def on_run_start(self, session: Session) -> None:
        self.session = session
        model: Any = session.state.model
        model.memory = self

    def use(self, values: Tensor) -> Tensor:
        """Pass values on, with what comes before them done already."""
        is_now = self.steps is None or self.session.step + 1 in self.steps
        if is_now and len(values) > self.limit and torch.is_grad_enabled():
            if self.place == "forward":
                self._fail()
            values.register_hook(lambda _: self._fail())
        return values

    def _fail(self) -> None:
        self.num_failures += 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Net(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(6, 16)
        self.middle = nn.Sequential(*layers)
        self.head = nn.Linear(16, 3)
        self.memory: Memory | None = None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.middle(self.body(x).relu())
        return self.head(self.memory.use(hidden) if self.memory else hidden)


class Sum(nn.Module):
    """Adds up what it saw, in buffers that change in three ways."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("seen", "seen_by_data", "seen_anew"):
            self.register_buffer(name, torch.zeros(16))
        self.register_buffer("late", None)
        self.register_buffer("constant", torch.full((16,), torch.nan))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        total = x.detach().sum(0)
        self.seen += total
        self.seen_by_data.data.add_(total)
        self.seen_anew = self.seen_anew + total
        self.late = total if self.late is None else self.late + total
        return x


class Keyed(Net):
    def forward(self, values: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(values * scale[:, None])


class PerToken(Net):
    """Logits (batch, class, token) of tokens (batch, token)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., None] * torch.ones(6)).transpose(1, 2)


class MaskedSum:
    monitor = "val/loss"
    higher_is_better = False

    def loss(self, outputs: Tensor, targets: Tensor) -> LossSum:
        return LossSum(F.cross_entropy(outputs, targets, reduction="sum"), (targets != -100).sum())

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {}


DICTS = [{"values": x, "scale": x[0], "label": y} for x, y in SAMPLES]
TOKENS = [(x, torch.where(x > -0.5, y, -100)) for x, y in SAMPLES]

Setting = tuple[Callable[[], Net], Any, dict[str, Any]]
SETTINGS: dict[str, Setting] = {
    "plain": (Net, SAMPLES, {}),
    "dicts": (Keyed, DICTS, {}),
    "masked": (PerToken, TOKENS, {"task": MaskedSum(), "loss": None}),
    "dropout": (lambda: Net(nn.Dropout(0.3)), SAMPLES, {}),
    "batch norm": (lambda: Net(nn.BatchNorm1d(16)), SAMPLES, {}),
    "buffers": (lambda: Net(Sum()), SAMPLES, {}),
    "all": (lambda: Net(nn.Dropout(0.3), nn.BatchNorm1d(16), Sum()), SAMPLES, {}),
}
MATHEMATICS = ("plain", "dicts", "masked")


class Samples:
    """Notes what was trained on."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def on_batch_start(self, batch: Any) -> None:
        self.batches.append(next(iter(batch.values())) if isinstance(batch, dict) else batch[0])


class Halving:
    """Sets the micro batch by hand from a step on."""

    def __init__(self, size: int, step: int = 1) -> None:
        self.size = size
        self.step = step
        self.session: Session

    def on_run_start(self, session: Session) -> None:
        self.session = session

    def on_batch_start(self) -> None:
        if self.session.step + 1 == self.step:
            self.session.learner.micro_batch_size = self.size


class Told:
    def __init__(self) -> None:
        self.adjustments: list[Adjustment] = []

    def on_adjustment(self, adjustment: Adjustment) -> None:
        self.adjustments.append(adjustment)


MakeOptimizer = Callable[[nn.Module], Optimizer]


def adamw(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=0.02)


def train(setting: Setting, *hooks: object, make_optimizer: MakeOptimizer = adamw, **settings: Any) -> Any:
    """Return everything that is left of a training."""
    make_model, samples, how = setting
    model = make_model()
    optimizer = make_optimizer(model)
    given = {"max_steps": NUM_STEPS, "device": "cpu", "precision": "fp32", "ema_decay": 0.9, **settings}
    torch.manual_seed(1)
    seen = Samples()
    result: FitResult = Trainer(**given).fit(
        model,
        DataLoader(samples, batch_size=BATCH_SIZE, shuffle=True),
        **{"loss": "cross_entropy", **how},
        optimizer=optimizer,
        hooks=[*hooks, seen],
    )
    assert result.ema is not None
    assert result.num_skipped == 0
    left = {**model.state_dict(), **{f"ema.{k}": v for k, v in result.ema.state_dict().items()}}
    return {**left, "generator": torch.get_rng_state(), "batches": torch.cat(seen.batches)}


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items() if "constant" not in name
    )


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(
        float((one[name] - other[name]).abs().max())
        for name in one
        if name.startswith(("body", "head", "ema"))
    )


@pytest.mark.parametrize("place", ["forward", "backward"])
@pytest.mark.parametrize("name", SETTINGS)
def test_running_out_of_memory_in_the_first_update_is_as_if_micro_batches_had_been_small(
    name: str, place: str
) -> None:
    memory, told = Memory(limit=10, place=place), Told()
    found = train(SETTINGS[name], memory, told)
    assert memory.num_failures == 2
    assert [(a.step, a.old, a.new) for a in told.adjustments] == [(1, 32, 8)]
    assert are_equal(found, train(SETTINGS[name], micro_batch_size=8))
    if name in MATHEMATICS:
        assert distance(found, train(SETTINGS[name])) < 1e-6


@pytest.mark.parametrize("place", ["forward", "backward"])
@pytest.mark.parametrize("micro_batch_size", ["auto", 16])
@pytest.mark.parametrize("name", SETTINGS)
def test_running_out_of_memory_once_changes_nothing_but_the_micro_batch(
    name: str, micro_batch_size: Any, place: str
) -> None:
    memory, told = Memory(limit=9, place=place, steps=[5]), Told()
    found = train(SETTINGS[name], memory, told, micro_batch_size=micro_batch_size)
    old = 32 if micro_batch_size == "auto" else 16
    assert [(a.step, a.old, a.new) for a in told.adjustments] == [(5, old, 8)]
    by_hand = train(SETTINGS[name], Halving(8, step=5), micro_batch_size=micro_batch_size)
    assert are_equal(found, by_hand)


def test_the_noise_and_the_buffers_would_be_others_if_they_were_not_put_back() -> None:
    """So the tests above see a difference where there is one."""
    whole = train(SETTINGS["all"])
    assert not torch.equal(whole["generator"], train(SETTINGS["plain"])["generator"])
    assert whole["middle.2.seen"].abs().min() > 0
    assert whole["middle.1.num_batches_tracked"] == NUM_STEPS


def test_what_happened_is_told_with_what_batch_norm_makes_of_it(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    train(SETTINGS["plain"], Memory(limit=20, steps=[4]), told)
    line = "out of memory at 32 samples; micro batch 16 from here on, the update was run again"
    assert told.adjustments == [Adjustment(4, "trainer.micro_batch_size", 32, 16, line)]
    assert not caplog.records
    train(SETTINGS["batch norm"], Memory(limit=20, steps=[4]))
    assert caplog.messages == [f"step 4: {line}; BatchNorm now takes the statistics of 16 samples"]
    caplog.clear()
    train((lambda: Net(nn.BatchNorm1d(16).eval()), SAMPLES, {}), Memory(limit=20, steps=[4]))
    assert caplog.messages == [f"step 4: {line}"]


def test_a_size_that_is_not_even_is_divided_into_two_parts_and_not_three() -> None:
    told = Told()
    train(SETTINGS["plain"], Memory(limit=20, steps=[2]), told, micro_batch_size=25)
    assert told.adjustments[0].new == 13


def test_a_batch_that_is_smaller_than_the_others_is_halved_by_its_own_size() -> None:
    told = Told()
    samples = SAMPLES[:40]
    train((Net, samples, {}), Memory(limit=4, steps=[2]), told)
    assert [(a.old, a.new) for a in told.adjustments] == [(8, 4)]


def test_a_sample_that_does_not_fit_ends_the_training_with_its_shape() -> None:
    with pytest.raises(RunError) as raised:
        train(SETTINGS["plain"], Memory(limit=0))
    assert str(raised.value) == (
        "not even one sample fits into memory (CUDA out of memory. Tried to allocate 2.00 GiB): the batch is "
        "(float32 (32, 6), int64 (32,)); the model is Net.forward(x), and the loss is cross_entropy. Take smaller "
        "samples or a smaller model."
    )


class FailingStep(SGD):
    """Runs out of memory in its third step."""

    num_steps = 0

    def step(self, closure: Any = None) -> Any:
        self.num_steps += 1
        if self.num_steps == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().step(closure)


def test_memory_that_runs_out_in_the_optimizer_ends_the_training_with_advice() -> None:
    told = Told()
    with pytest.raises(torch.OutOfMemoryError) as raised:
        train(SETTINGS["plain"], told, make_optimizer=lambda model: FailingStep(model.parameters(), lr=0.1))
    assert told.adjustments == []
    assert raised.value.__notes__[0].startswith(
        "Memory ran out after the backward pass, where nothing can be "
    )


def test_any_other_error_is_raised_at_once() -> None:
    class Broken(Memory):
        def _fail(self) -> None:
            self.num_failures += 1
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    memory = Broken(limit=16)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train(SETTINGS["plain"], memory)
    assert memory.num_failures == 1


@pytest.mark.parametrize("evaluation", [1, 3])
def test_lbfgs_evaluates_again_what_did_not_fit(evaluation: int) -> None:
    def make_lbfgs(model: nn.Module) -> Optimizer:
        return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)

    class Once(Memory):
        """Fails once, in an evaluation of the third update."""

        num_evaluations = 0

        def use(self, values: Tensor) -> Tensor:
            if self.session.step == 2:
                self.num_evaluations += 1
            self.steps = [3] if self.num_evaluations == evaluation else []
            return super().use(values)

    setting = (lambda: Net(nn.BatchNorm1d(16), nn.Dropout(0.1)), SAMPLES, {})

    class HalvingWithin:
        """Sets the micro batch by hand before an evaluation of the third update."""

        def on_run_start(self, session: Session) -> None:
            evaluations = itertools.count(1)
            passes = session.learner._passes

            def halving(batch: Any, index: int) -> Any:
                if session.step == 2 and next(evaluations) == evaluation:
                    session.learner.micro_batch_size = 16
                return passes(batch, index)

            session.learner._passes = halving  # type: ignore[method-assign]

    memory = Once(limit=20)
    found = train(setting, memory, make_optimizer=make_lbfgs)
    assert memory.num_failures == 1
    assert are_equal(found, train(setting, HalvingWithin(), make_optimizer=make_lbfgs))
    assert not are_equal(found, train(setting, make_optimizer=make_lbfgs))


def test_a_checkpoint_follows_at_once_so_that_a_resume_rounds_in_the_same_way(tmp_path: Path) -> None:
    steps = []

    class Saves:
        def on_checkpoint(self, path: Path) -> None:
            steps.append(int(path.name.removeprefix("step-")))

    model = Net()
    Trainer(max_steps=NUM_STEPS, device="cpu", precision="fp32").fit(
        model,
        DataLoader(SAMPLES, batch_size=BATCH_SIZE),
        loss="cross_entropy",
        optimizer=adamw(model),
        hooks=[Memory(limit=20, steps=[5]), Saves()],
        checkpoints=Checkpoints(tmp_path),
    )
    assert steps == [5, NUM_STEPS]

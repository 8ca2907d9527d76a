"""The learning-rate range test: the rate rises with each update until the loss explodes.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186), section 3.3. It says
between which rates something happens; which of them is the best it doesn't, see `rootflow.discover.probes`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean, median
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from rootflow.discover.suggestions import find_fall, measure_noise, smooth
from rootflow.discover.trials import Trials
from rootflow.errors import ConfigError, RunError
from rootflow.tasks import LossSum, Task
from rootflow.train.learner import Learner
from rootflow.train.objective import Objective

LOOK_EVERY = 10
"""Updates between two looks at the losses, which wait for the device."""
_MOST_SKIPPED = 5
"""Updates in a row without a finite gradient that count as an explosion."""
_DECADES_DOWN, _DECADES_UP = 3, 4
"""How far from its class's default an optimizer's useful rates are looked for; twice as far down where even
the lowest of these explodes, as with targets that aren't standardised."""
_LINEAR_REACH = 3
"""How far above the lowest loss of an exponential test a linear one goes."""
SURVEY = 5
"""Points that tell the loss before anything has changed."""


class Point(NamedTuple):
    """One update of a range test."""

    lr: float
    """Of the first parameter group."""
    loss: float
    """Of the batch, before the update."""
    accuracy: float | None
    """The same, where the task measures it."""


@dataclass(frozen=True)
class RangeTest:
    """The curve of a range test."""

    points: tuple[Point, ...]
    """One for each update that was applied, up to the explosion."""
    num_steps: int
    """Updates spent, also those that were skipped."""

    @property
    def lrs(self) -> list[float]:
        """The rates in rising order."""
        return [point.lr for point in self.points]

    @property
    def losses(self) -> list[float]:
        """The losses at `lrs`, as they came."""
        return [point.loss for point in self.points]

    @property
    def noise(self) -> float:
        """How much the losses of batches differ from one another: a standard deviation."""
        return measure_noise(self.losses)

    def bracket(self) -> tuple[float, float] | None:
        """Return the rates from which on, and up to which, the loss falls; None where it never does.

        Smith's bounds of a cyclical schedule.
        """
        fall = find_fall(self.losses)
        return None if fall is None else (self.points[fall.start].lr, self.points[fall.lowest].lr)

    @property
    def usable_lr(self) -> float | None:
        """A rate to begin with: of the lowest loss, or below the explosion; None: all exploded."""
        found = self.bracket()
        if found is not None:
            return found[1]
        return self.points[-1].lr / 10 if len(self.points) > SURVEY else None


class Rates:
    """The learning rates of all parameter groups, in their ratios: those now, or before a scheduler came.

    Args:
        optimizers: the rate of the first group of the first one stands for all.

    Raises:
        ConfigError: that group has no rate above 0.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        bases = [float(group.get("initial_lr", group.get("lr", 0))) for group in groups]
        self.first = bases[0]
        if not self.first > 0:
            raise ConfigError(
                f"the first parameter group of the {type(optimizers[0]).__name__} has the learning rate "
                f"{self.first:g}; a search needs one above 0, which the other groups follow. Give it one, or "
                "put another group first."
            )
        self._ratios = [base / self.first for base in bases]
        self.usual = _default_of(optimizers[0]) or self.first
        """The default of the optimizer's class, which tells the size of its rates."""

    def set(self, learner: Learner, lr: float) -> None:
        """Give the first group a rate, and the others theirs."""
        groups = [group for optimizer in learner.optimizers for group in optimizer.param_groups]
        for group, ratio in zip(groups, self._ratios, strict=True):
            if isinstance(old := group["lr"], Tensor):  # as `capturable` optimizers have it
                group["lr"] = torch.full_like(old, lr * ratio)
            else:
                group["lr"] = lr * ratio


def find_range(
    trials: Trials,
    rates: Rates,
    batches: Sequence[Any],
    *,
    max_steps: int,
    shape: Literal["exponential", "linear"] = "exponential",
) -> RangeTest:
    """Run a range test over all rates that may suit the optimizer; lower, where the first of them explodes.

    Args:
        trials: open.
        rates: of its optimizers.
        batches: repeated where there are too few.
        max_steps: updates for all of it.
        shape: how the rate rises from update to update. Where it rises linearly, half of the updates first
            find out up to where.
    """
    low, high = rates.usual * 10**-_DECADES_DOWN, rates.usual * 10**_DECADES_UP
    steps = max_steps if shape == "exponential" else max_steps // 2
    found = run_range_test(trials, rates, batches, exponential(low, high, steps))
    spent = found.num_steps
    if found.usable_lr is None and steps - spent > 2 * SURVEY:
        lower = exponential(low * 10 ** (-2 * _DECADES_DOWN), low, steps - spent)
        found = run_range_test(trials, rates, batches, lower)
        spent += found.num_steps
    if shape == "linear" and found.usable_lr is not None:
        found = run_range_test(
            trials, rates, batches, linear(_LINEAR_REACH * found.usable_lr, max_steps - spent)
        )
        spent += found.num_steps
    return RangeTest(found.points, spent)


def run_range_test(trials: Trials, rates: Rates, batches: Sequence[Any], lrs: Sequence[float]) -> RangeTest:
    """Make an update at each of some rising rates, from the model's beginning, until the loss explodes."""
    points: list[Point] = []
    waiting: list[_Update] = []
    num_skipped = 0
    with trials.trial() as learner, _listening(trials.objective) as heard:
        for number, lr in enumerate(lrs, 1):
            rates.set(learner, lr)
            loss, _, _ = learner.update(batches[(number - 1) % len(batches)])
            waiting.append(_Update(lr, loss, learner.num_skipped, _take_accuracy(heard)))
            if number % LOOK_EVERY and number < len(lrs):
                continue
            for update in waiting:
                if int(update.num_skipped) == num_skipped:
                    points.append(update.point())
                num_skipped = int(update.num_skipped)
            waiting.clear()
            if int(learner.bad_steps) >= _MOST_SKIPPED or has_exploded([point.loss for point in points]):
                break
    finite = takewhile(lambda point: math.isfinite(point.loss), points)
    return RangeTest(tuple(finite), number)


class _Update(NamedTuple):
    """What is known of an update without waiting for the device."""

    lr: float
    loss: Tensor
    num_skipped: Tensor | int
    accuracy: Tensor | None

    def point(self) -> Point:
        accuracy = None if self.accuracy is None else float(self.accuracy)
        return Point(self.lr, float(self.loss), accuracy)


def exponential(low: float, high: float, count: int) -> list[float]:
    """Return rates, the next always the same factor above."""
    return [low * (high / low) ** (number / max(count - 1, 1)) for number in range(count)]


def linear(high: float, count: int) -> list[float]:
    """Return rates from nearly 0, the next always the same step above."""
    return [high * number / count for number in range(1, count + 1)]


def has_exploded(losses: Sequence[float]) -> bool:
    """Whether a curve ends far above where it began: by more than twice all that it fell, or was."""
    if losses and not math.isfinite(losses[-1]):
        return True
    if len(losses) < 2 * SURVEY:
        return False
    level = median(losses[:SURVEY])
    fall = max(level - float(smooth(losses).min()), 0.0)
    return fmean(losses[-3:]) - level > 2 * max(fall, abs(level), measure_noise(losses[:SURVEY]))


class _Listener:
    """A task that measures what it gets to compute losses of."""

    def __init__(self, task: Task, heard: list[tuple[Tensor, int]]) -> None:
        self._task = task
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, outputs: Any, targets: Any) -> Tensor | LossSum:
        """Return the task's loss."""
        with suppress(RunError), torch.no_grad():  # what can't be measured: targets that were mixed, say
            measured = self._task.measure(outputs, targets).get("accuracy")
            if isinstance(measured, Tensor):
                self._heard.append((measured, len(outputs)))
        return self._task.loss(outputs, targets)


@contextmanager
def _listening(objective: Objective) -> Iterator[list[tuple[Tensor, int]]]:
    """Give a list that fills with samples classified rightly, and of how many, in each forward pass."""
    heard: list[tuple[Tensor, int]] = []
    task = objective.task
    if task is not None:
        objective.task = cast("Task", _Listener(task, heard))
    try:
        yield heard
    finally:
        objective.task = task


def _take_accuracy(heard: list[tuple[Tensor, int]]) -> Tensor | None:
    """Return the mean over what was heard since it was last asked: over micro batches, say."""
    counts = [count for _, count in heard]
    found = torch.stack([right for right, _ in heard]).sum() / sum(counts) if counts else None
    heard.clear()
    return found


def _default_of(optimizer: Optimizer) -> float | None:
    """Return the learning rate that an optimizer's class has by default."""
    parameter = inspect.signature(type(optimizer)).parameters.get("lr")
    default = None if parameter is None else parameter.default
    return float(default) if isinstance(default, int | float) and default > 0 else None

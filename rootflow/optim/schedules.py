"""Numbers that change over a training, first of all the learning rate.

`Schedule` is a number as a pure function of progress, from 0 at the start to 1 at the end; it knows
nothing of steps, optimizers or torch. `WarmupDecay` applies one to the learning rate.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LambdaLR, LRScheduler

from rootflow.durations import Duration, count_steps
from rootflow.errors import ConfigError
from rootflow.limits import Fraction, NonNegativeFloat, PositiveInt
from rootflow.optim.intervals import Interval, interval_of
from rootflow.registry import register

Shape: TypeAlias = Literal["constant", "linear", "cosine", "one_minus_sqrt"]

_REMAINING: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda decayed: 1 - decayed,
    "cosine": lambda decayed: (1 + math.cos(math.pi * decayed)) / 2,
    "one_minus_sqrt": lambda decayed: 1 - math.sqrt(decayed),
}
"""What is left of the way down from peak to final, by how much of the decay has passed (0 to 1)."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A number over a duration: it rises from 0 to its peak, stays there, and falls to its end."""

    shape: Shape = "linear"
    """how it falls; 1 - sqrt is the best for a short decay (Hägele et al. 2024, arXiv 2405.18392)"""
    peak: float = 1.0
    """value between the rise and the fall"""
    final: float = 0.0
    """value at the end; `constant` never leaves the peak"""
    warmup_frac: NonNegativeFloat = 0.0
    """share of the duration, at its start, over which the number rises in a line; above 1 it never arrives"""
    decay_frac: Fraction = 1.0
    """share of the duration, at its end, over which the number falls; the rise has precedence"""

    def value_at(self, progress: float) -> float:
        """Return the number at a progress between 0 and 1; beyond, it is as at the nearer end."""
        progress = min(max(progress, 0.0), 1.0)
        if progress < self.warmup_frac:
            return self.peak * progress / self.warmup_frac
        decay_start = max(self.warmup_frac, 1 - self.decay_frac)
        if progress <= decay_start:
            return self.peak
        remaining = _REMAINING[self.shape]((progress - decay_start) / (1 - decay_start))
        return self.final + (self.peak - self.final) * remaining


@register("scheduler", "warmup_decay")
class WarmupDecay(LambdaLR):
    """Learning rate that rises over the first updates, stays, and falls until the last one.

    Each update uses the schedule's value in the middle of its share of the training, so that neither the
    first nor the last one is lost to a learning rate of 0.

    Args:
        optimizer: its learning rate is the peak
        total_steps: updates in the whole training; null: nobody knows, and the shape must be constant
        steps_per_epoch: updates in an epoch, for durations in epochs
        shape: how it falls; constant stays at the peak
        warmup: how long it rises from 0 at the start: `5%`, `500 steps` or `2 epochs`
        decay: how long it falls at the end; `20%` is warm-up, stable, decay
        final_frac: learning rate at the end, as a share of the peak

    Raises:
        ConfigError: without total_steps, the shape falls or the warm-up is a share.
    """

    interval: ClassVar[Interval] = "step"

    def __init__(  # noqa: PLR0913  # what the run tells, and each key of the config
        self,
        optimizer: Optimizer,
        total_steps: PositiveInt | None,
        *,
        steps_per_epoch: PositiveInt,
        shape: Shape = "linear",
        warmup: Duration = "5%",
        decay: Duration = "100%",
        final_frac: NonNegativeFloat = 0.0,
    ) -> None:
        count = functools.partial(count_steps, steps_per_epoch=steps_per_epoch, total_steps=total_steps)
        falls = shape != "constant"
        if falls and total_steps is None:
            raise ConfigError(
                f"scheduler.shape is {shape!r}, which falls until the end of a training, whose length is not "
                "known. Choose scheduler=constant, or give trainer.max_epochs or trainer.max_steps."
            )
        rise = count(warmup, key="scheduler.warmup")
        fall = count(decay, key="scheduler.decay") if falls else 0.0
        duration = total_steps or max(rise, 1.0)  # a constant of unknown length is all said with its rise
        schedule = Schedule(
            shape=shape, final=final_frac, warmup_frac=rise / duration, decay_frac=fall / duration
        )
        super().__init__(optimizer, lambda step: schedule.value_at((step + 0.5) / duration))


@register("scheduler", "chained")
def chained(optimizer: Optimizer, schedulers: list[LRScheduler]) -> ChainedScheduler:
    """Several schedulers at once, each changing what the one before made of the learning rate.

    Args:
        optimizer: the one that all of them change
        schedulers: each `{name: ..., ...}`
    """
    return ChainedScheduler(schedulers, optimizer)


def scheduler_facts(
    scheduler: Callable[..., Any],
    *,
    num_steps: int | None,
    steps_per_epoch: int,
    lr: float,
    higher_is_better: bool | None = None,
) -> dict[str, tuple[float | str, str]]:
    """Return what a training tells about a scheduler's parameters: `{name: (value, reason)}`.

    Durations are in what the scheduler counts, see `interval_of`; a function's scheduler counts
    updates.

    Args:
        scheduler: a class, or a function that returns a scheduler.
        num_steps: updates in the whole training; None where nobody knows, and then nothing that needs it.
        steps_per_epoch: updates in a whole epoch.
        lr: the optimizer's learning rate.
        higher_is_better: of the monitored metric; None where there is none, and then no `mode`.
    """
    facts: dict[str, tuple[float | str, str]] = {
        "steps_per_epoch": (steps_per_epoch, "updates in an epoch"),
        "max_lr": (lr, "the optimizer's lr"),
        "base_lr": (lr / 4, "a quarter of the optimizer's lr (Smith 2017, arXiv 1506.01186)"),
    }
    if num_steps is not None:
        num_epochs = math.ceil(num_steps / steps_per_epoch)
        counts_steps = not isinstance(scheduler, type) or interval_of(scheduler) == "step"
        length, counted = (num_steps, "updates") if counts_steps else (num_epochs, "epochs")
        whole = (length, f"{counted} in the whole training")
        facts |= {"total_steps": whole, "total_iters": whole, "T_max": whole}
        facts["epochs"] = (num_epochs, "epochs in the whole training")
    if higher_is_better is not None:
        facts["mode"] = ("max" if higher_is_better else "min", "the better side of the monitored metric")
    return facts

"""Numbers that change over a training, first of all the learning rate.

`Schedule` is a number as a pure function of progress, from 0 at the start to 1 at the end; it knows
nothing of steps, optimizers or torch. `WarmupDecay` applies one to the learning rate, and to whatever
else of the optimizer is to change along.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler

from rootflow.durations import Duration, count_steps
from rootflow.errors import ConfigError, did_you_mean
from rootflow.limits import Auto, Fraction, NonNegativeFloat, PositiveInt
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
    """A number over a duration: it rises to its peak, stays there, and falls to its end."""

    shape: Shape = "linear"
    """how it falls; 1 - sqrt is the best for a short decay (Hägele et al. 2024, arXiv 2405.18392)"""
    initial: float = 0.0
    """value at the start, if there is a rise"""
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
        progress = 0.0 if progress < 0.0 else 1.0 if progress > 1.0 else progress
        if progress < self.warmup_frac:
            return self.initial + (self.peak - self.initial) * (progress / self.warmup_frac)
        decay_start = max(self.warmup_frac, 1 - self.decay_frac)
        if progress <= decay_start:
            return self.peak
        remaining = _REMAINING[self.shape]((progress - decay_start) / (1 - decay_start))
        return self.final + (self.peak - self.final) * remaining


@dataclass(frozen=True, kw_only=True)
class Along:
    """How another setting of the optimizer changes along with the learning rate, as factors on its own value.

    It moves while the learning rate rises, and again while that falls.
    """

    shape: Shape = "linear"
    """how it moves from 1 to its end"""
    initial: NonNegativeFloat = 1.0
    """factor at the start, which becomes 1 in a line over the warm-up"""
    final: NonNegativeFloat = 0.0
    """factor at the end"""


@register("scheduler", "warmup_decay")
class WarmupDecay(LRScheduler):
    """Learning rate that rises over the first updates, stays, and falls until the last one.

    Each update uses the schedule's value in the middle of its share of the training, so that neither the
    first nor the last one is lost to a learning rate of 0. Where nobody knows which update will be the last,
    the learning rate stays at its peak until `begin_decay`.

    Args:
        optimizer: its learning rate is the peak
        total_steps: updates in the whole training; null: nobody knows, the fall begins when it is told to
        steps_per_epoch: updates in an epoch, for durations in epochs; null: nobody knows
        shape: how it falls; constant: never; auto: in a line, or as 1 - sqrt where it is told when to
        warmup: how long it rises from 0: `5%`, `500 steps` or `2 epochs`; auto: 5 %, or if nobody knows how
            long the training is max(200 steps, 1 epoch), but 5 epochs at most
        decay: how long it falls at the end of a known length; `20%` is warm-up, stable, decay
        final_frac: learning rate at the end, as a share of the peak
        also: other settings that change along, as in `{weight_decay: {shape: cosine, final: 0.1}}`

    Raises:
        ConfigError: a duration is a share of a length that nobody knows, or in epochs of unknown length; or
            the optimizer has no setting of that name.
    """

    interval: ClassVar[Interval] = "step"

    def __init__(  # noqa: PLR0913  # what the run tells, and each key of the config
        self,
        optimizer: Optimizer,
        total_steps: PositiveInt | None,
        *,
        steps_per_epoch: PositiveInt | None,
        shape: Shape | Auto = "auto",
        warmup: Duration | Auto = "auto",
        decay: Duration = "100%",
        final_frac: NonNegativeFloat = 0.0,
        also: dict[str, Along] | None = None,
    ) -> None:
        count = functools.partial(count_steps, steps_per_epoch=steps_per_epoch, total_steps=total_steps)
        rise = (
            _auto_warmup(total_steps, steps_per_epoch)
            if warmup == "auto"
            else count(warmup, key="scheduler.warmup")
        )
        fall = count(decay, key="scheduler.decay") if total_steps is not None else 0.0
        self.total_steps = total_steps
        self.shape = shape
        self._num_steps = total_steps or max(rise, 1.0)  # of unknown length all is said with the rise
        lr_shape: Shape = "linear" if shape == "auto" else shape
        self._lr = Schedule(
            shape=lr_shape,
            final=final_frac,
            warmup_frac=rise / self._num_steps,
            decay_frac=fall / self._num_steps,
        )
        self._also = {
            name: dataclasses.replace(self._lr, shape=along.shape, initial=along.initial, final=along.final)
            for name, along in (also or {}).items()
        }
        self._decay_start = self._decay_steps = 0
        _check_settings(optimizer, self._also)
        self._choose_phase()
        _note_initial(optimizer, self._also)
        super().__init__(optimizer)

    @property
    def can_begin_decay(self) -> bool:
        """Whether `begin_decay` is what the fall waits for."""
        return self.total_steps is None and self.shape != "constant" and not self._decay_steps

    def begin_decay(self, num_steps: int) -> None:
        """Let the learning rate fall from where it is, over this many updates from the next one on.

        Raises:
            ValueError: it can't begin: it has begun, or never does; or no update is given. Nothing changed.
        """
        if not self.can_begin_decay:
            raise ValueError("the decay can't begin: it has begun, its time is fixed, or it never comes")
        if num_steps < 1:
            raise ValueError(f"a decay takes at least 1 update, not {num_steps}")
        self._decay_start, self._decay_steps = self.last_epoch, num_steps
        self._choose_phase()
        self._apply()

    def step(self, epoch: int | None = None) -> None:
        """Set what the next update uses.

        Args:
            epoch: the number of updates applied; None adds one. Only `SequentialLR` gives it.
        """
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Return where it is, as whole numbers. What it was built with isn't in it."""
        return {
            "last_epoch": self.last_epoch,
            "decay_start": self._decay_start,
            "decay_steps": self._decay_steps,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved place, on this schedule: a longer `total_steps` than the saved one's holds.

        The optimizer's state is to be loaded before, which has the learning rate of the saved schedule.
        """
        self.last_epoch = state_dict["last_epoch"]
        self._decay_start, self._decay_steps = state_dict["decay_start"], state_dict["decay_steps"]
        _note_initial(self.optimizer, self._also)
        self._choose_phase()
        self._apply()

    def _choose_phase(self) -> None:
        """Settle what `_apply`, which runs after every update, would otherwise ask each time."""
        self._phase, self._phase_start, self._phase_steps = self._lr, 0, self._num_steps
        self._phase_also = tuple(self._also.items())
        if self._decay_steps:
            self._phase_start, self._phase_steps = self._decay_start, float(self._decay_steps)
            self._phase = self._falling(self._lr, "one_minus_sqrt" if self.shape == "auto" else self.shape)
            self._phase_also = tuple((k, self._falling(s, s.shape)) for k, s in self._also.items())

    def _falling(self, schedule: Schedule, shape: Shape) -> Schedule:
        """Return the fall of a schedule from where it was when the decay began."""
        staying = dataclasses.replace(schedule, decay_frac=0.0)
        reached = staying.value_at((self._decay_start + 0.5) / self._num_steps)
        return Schedule(shape=shape, peak=reached, final=schedule.final)

    def _apply(self) -> None:
        progress = (self.last_epoch - self._phase_start + 0.5) / self._phase_steps
        factor = self._phase.value_at(progress)
        rates = []
        for group in self.optimizer.param_groups:
            rate = group["initial_lr"] * factor
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
            rates.append(rate)
        self._last_lr = rates
        for name, schedule in self._phase_also:
            factor = schedule.value_at(progress)
            for group in self.optimizer.param_groups:
                _set(group, name, group[f"initial_{name}"] * factor)


def _auto_warmup(total_steps: int | None, steps_per_epoch: int | None) -> float:
    """Return 5 % of a known length, else 200 updates or an epoch, whichever is longer, within 5 epochs."""
    if total_steps is not None:
        return 5 * total_steps / 100
    if steps_per_epoch is None:
        return 200
    return min(max(200, steps_per_epoch), 5 * steps_per_epoch)


def _check_settings(optimizer: Optimizer, names: Iterable[str]) -> None:
    known = set.intersection(*(_settings_of(group) for group in optimizer.param_groups))
    for name in names:
        if name not in known:
            raise ConfigError(
                f"scheduler.also.{name}: {type(optimizer).__name__} has no such setting that could change."
                f"{did_you_mean(name, known)} It has {', '.join(sorted(known)) or 'none beside lr'}."
            )


def _settings_of(group: Mapping[str, Any]) -> set[str]:
    """Return the names of a group's numbers; the first of `betas` goes by the name of what it is."""
    numbers = {k for k, v in group.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    momentum = {"momentum"} if "betas" in group else set()
    return {name for name in numbers | momentum if name != "lr" and not name.startswith("initial_")}


def _note_initial(optimizer: Optimizer, names: Iterable[str]) -> None:
    """Keep each group's own value in the group, as torch keeps `initial_lr`: it is saved with it."""
    for group in optimizer.param_groups:
        for name in names:
            group.setdefault(f"initial_{name}", group[name] if name in group else group["betas"][0])


def _set(group: dict[str, Any], name: str, value: float) -> None:
    if name in group:
        group[name] = value
    else:
        group["betas"] = (value, *group["betas"][1:])


@register("scheduler", "chained")
def chained(optimizer: Optimizer, schedulers: list[LRScheduler]) -> ChainedScheduler:
    """Several schedulers at once, each changing what the one before made of the learning rate.

    Args:
        optimizer: the one that all of them change
        schedulers: each `{name: ..., ...}`
    """
    return ChainedScheduler(schedulers, optimizer)


_COUNTED = {"step": "updates", "epoch": "epochs"}


def scheduler_facts(
    scheduler: Callable[..., Any],
    *,
    num_steps: int | None,
    steps_per_epoch: int | None,
    lr: float,
    higher_is_better: bool | None = None,
    interval: Interval | Auto = "auto",
) -> dict[str, tuple[float | str, str]]:
    """Return what a training tells about a scheduler's parameters: `{name: (value, reason)}`.

    Durations are in what the scheduler counts, see `interval_of`; a function's scheduler counts
    updates. How many evaluations there will be nobody knows.

    Args:
        scheduler: a class, or a function that returns a scheduler.
        num_steps: updates in the whole training; None where nobody knows, and then nothing that needs it.
        steps_per_epoch: updates in a whole epoch; None where nobody knows, and then nothing in epochs.
        lr: the optimizer's learning rate.
        higher_is_better: of the monitored metric; None where there is none, and then no `mode`.
        interval: what the scheduler is made to count; auto: as `interval_of` says.
    """
    facts: dict[str, tuple[float | str, str]] = {
        "max_lr": (lr, "the optimizer's lr"),
        "base_lr": (lr / 4, "a quarter of the optimizer's lr (Smith 2017, arXiv 1506.01186)"),
    }
    if steps_per_epoch is not None:
        facts["steps_per_epoch"] = (steps_per_epoch, "updates in an epoch")
    if interval == "auto":
        interval = interval_of(scheduler) if isinstance(scheduler, type) else "step"
    lengths = _lengths(num_steps, steps_per_epoch)
    if interval in lengths:
        whole = (lengths[interval], f"{_COUNTED[interval]} in the whole training")
        facts |= {"total_steps": whole, "total_iters": whole, "T_max": whole}
    if "epoch" in lengths:
        facts["epochs"] = (lengths["epoch"], "epochs in the whole training")
    if higher_is_better is not None:
        facts["mode"] = ("max" if higher_is_better else "min", "the better side of the monitored metric")
    return facts


def _lengths(num_steps: int | None, steps_per_epoch: int | None) -> dict[Interval, int]:
    """Return how long a training is in what a scheduler may count, as far as it is known."""
    lengths: dict[Interval, int] = {}
    if num_steps is not None:
        lengths["step"] = num_steps
        if steps_per_epoch is not None:
            lengths["epoch"] = math.ceil(num_steps / steps_per_epoch)
    return lengths

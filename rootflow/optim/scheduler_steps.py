"""Each scheduler takes its steps when it is its turn: after an update, an epoch or an evaluation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from rootflow.errors import CheckpointError, ConfigError
from rootflow.optim.intervals import interval_of
from rootflow.optim.warmup import Warmup


class SchedulerSteps:
    """The schedulers of one training. Whose turn it is when is settled once, before the first update.

    Args:
        schedulers: one, or one of each of several optimizers; None is as none.

    Raises:
        ConfigError: a scheduler follows the monitored value, but is to take its steps at other times.
    """

    def __init__(self, schedulers: LRScheduler | Sequence[LRScheduler] | None = None) -> None:
        given = () if schedulers is None else schedulers
        self.schedulers: tuple[LRScheduler, ...] = tuple(given) if isinstance(given, Sequence) else (given,)
        turns = [(interval_of(scheduler), scheduler) for scheduler in self.schedulers]
        for interval, scheduler in turns:
            check_interval(scheduler, interval)
            if isinstance(scheduler, LRScheduler):
                # torch warns of a step before the optimizer's first; that may have been skipped as not finite
                scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]
        rises = [s.count_update for s in self.schedulers if isinstance(s, Warmup)]
        self.after_step = _one_call([*(s.step for interval, s in turns if interval == "step"), *rises])
        """To be called after every update: a scheduler's own `step` if it is alone; None for nothing."""
        self._after_epoch = [s.step for interval, s in turns if interval == "epoch"]
        self._after_evaluation = [
            (s.step, follows_monitored(s)) for interval, s in turns if interval == "evaluation"
        ]

    def after_epoch(self) -> None:
        """Advance the schedulers that count epochs."""
        for step in self._after_epoch:
            step()

    def after_evaluation(self, monitored: float | None) -> None:
        """Advance the schedulers that count evaluations.

        Raises:
            ConfigError: one follows the monitored value, and there is none.
        """
        for step, takes_monitored in self._after_evaluation:
            if not takes_monitored:
                step()
            elif monitored is None:
                raise ConfigError(
                    "the scheduler follows the monitored value, but nothing is monitored. Give validation "
                    "data, or another scheduler."
                )
            else:
                step(monitored)  # type: ignore[arg-type]  # torch: an int, of those that count

    def state_dict(self) -> dict[str, Any]:
        """Return the schedulers' own states."""
        return {"schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the schedulers' own states. Those of the optimizers are to be loaded before.

        Raises:
            CheckpointError: there were more or fewer schedulers.
        """
        states = state_dict["schedulers"]
        if len(states) != len(self.schedulers):
            raise CheckpointError(
                f"the checkpoint has {len(states)} schedulers, the training has {len(self.schedulers)}."
            )
        for scheduler, state in zip(self.schedulers, states, strict=True):
            scheduler.load_state_dict(state)


def check_interval(scheduler: LRScheduler, interval: str) -> None:
    """Refuse an interval after which a scheduler can't step.

    Raises:
        ConfigError: it follows the monitored value, but is to count something else than evaluations.
    """
    if interval != "evaluation" and follows_monitored(scheduler):
        name = type(_inner(scheduler)).__name__
        raise ConfigError(
            f"scheduler.interval is {interval!r}, but {name} follows the monitored value, which is there "
            "after an evaluation; it must be 'evaluation' or 'auto'."
        )


def follows_monitored(scheduler: LRScheduler) -> bool:
    """Whether `step` needs the monitored value, as that of torch's `ReduceLROnPlateau` does."""
    taken = inspect.signature(_inner(scheduler).step).parameters.values()
    return any(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in taken)


def _inner(scheduler: LRScheduler) -> LRScheduler:
    return scheduler.scheduler if isinstance(scheduler, Warmup) else scheduler


def _one_call(calls: Sequence[Callable[[], None]]) -> Callable[[], None] | None:
    """Return what calls each; a call that is alone as it is, without a frame around it."""
    if len(calls) < 2:
        return calls[0] if calls else None

    def call_each() -> None:
        for call in calls:
            call()

    return call_each

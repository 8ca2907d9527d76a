"""A warm-up before any scheduler."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rootflow.optim.intervals import interval_of


class Warmup(LRScheduler):
    """Any scheduler, its learning rates times a factor that rises in a line from 0 to 1.

    The scheduler counts as it would alone and never sees the factor, so that from the end of the warm-up on
    its learning rates are bitwise what they would be without one. The warm-up counts updates, whatever the
    scheduler counts; each update uses the factor in the middle of its share, as in `WarmupDecay`.

    Args:
        scheduler: has taken no step yet.
        num_steps: updates over which the factor rises.
    """

    def __init__(self, scheduler: LRScheduler, num_steps: float) -> None:
        # Not the base class's __init__: it would take a step, which the scheduler within has taken.
        self.scheduler = scheduler
        self.optimizer: Optimizer = scheduler.optimizer
        self.interval = interval_of(scheduler)
        self.num_steps = num_steps
        self.num_updates = 0
        self._rates = self.get_last_lr()
        self._scale()

    def step(self, *arguments: Any) -> None:
        """Step the scheduler, with what it takes: a monitored value, or nothing."""
        if self.num_updates >= self.num_steps:
            self.scheduler.step(*arguments)
            return
        self._write(self._rates)
        self.scheduler.step(*arguments)
        self._rates = self.get_last_lr()
        self._scale()

    def count_update(self) -> None:
        """Raise the factor: an update was applied."""
        if self.num_updates < self.num_steps:
            self.num_updates += 1
            self._scale()

    def get_last_lr(self) -> list[float | Tensor]:
        """Return the learning rates that the next update uses."""
        return [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's own state, the place in the warm-up, and the rates without the factor."""
        is_rising = self.num_updates < self.num_steps
        return {
            "num_updates": self.num_updates,
            "rates": [_copy(rate) for rate in self._rates] if is_rising else self.get_last_lr(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved place. The optimizer's state is to be loaded before."""
        self.scheduler.load_state_dict(state_dict["scheduler"])
        self.num_updates = state_dict["num_updates"]
        self._rates = [*state_dict["rates"]]
        if self.num_updates < self.num_steps:
            self._scale()

    def _scale(self) -> None:
        factor = min(1.0, (self.num_updates + 0.5) / self.num_steps)
        self._write([rate * factor for rate in self._rates])

    def _write(self, rates: list[float | Tensor]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def _copy(rate: float | Tensor) -> float | Tensor:
    return rate.clone() if isinstance(rate, Tensor) else rate

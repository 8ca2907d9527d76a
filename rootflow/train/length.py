"""How long a training lasts at most, and how often something is done in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from rootflow.durations import read_span
from rootflow.errors import ConfigError
from rootflow.limits import Unit
from rootflow.train.loop import Position

EvalEvery: TypeAlias = Annotated[str, Unit("epochs"), Unit("steps")]
SaveEvery: TypeAlias = Annotated[str, Unit("s"), Unit("epochs"), Unit("steps")]


@dataclass(frozen=True)
class Limits:
    """The budget of a training; None where there is no limit."""

    max_epochs: int | None = None
    most_epochs: int | None = None
    """Epochs at which a training of no set length ends; no schedule counts on it."""
    max_steps: int | None = None
    max_samples: int | None = None
    max_time: float | None = None
    steps_per_epoch: int | None = None
    """Updates of an epoch; None where nobody knows."""
    batch_size: int | None = None
    """Samples of every update; None where they may be fewer."""

    @property
    def num_steps(self) -> int | None:
        """Updates of the whole training, where they are known beforehand."""
        known = [] if self.max_steps is None else [self.max_steps]
        if self.max_epochs is not None and self.steps_per_epoch is not None:
            known.append(self.max_epochs * self.steps_per_epoch)
        if self.max_samples is not None and self.batch_size is not None:
            known.append(math.ceil(self.max_samples / self.batch_size))
        return min(known, default=None)

    def reached(self, position: Position, *, is_pass_over: bool, elapsed_s: float) -> str:
        """Return which limit the last update has reached; empty if none."""
        if self.max_steps is not None and position.step >= self.max_steps:
            return "max_steps reached"
        if self.max_samples is not None and position.num_seen >= self.max_samples:
            return "max_samples reached"
        most = self.max_epochs or self.most_epochs
        if most is not None and is_pass_over and position.epoch >= most:
            return "max_epochs reached"
        return "max_time reached" if self.max_time is not None and elapsed_s >= self.max_time else ""

    def spent(self, position: Position, *, elapsed_s: float) -> tuple[float, str]:
        """Return what share of a budget is used up that no schedule can count on, and its name."""
        shares = [(elapsed_s / self.max_time, "max_time")] if self.max_time is not None else []
        if self.max_samples is not None:
            shares.append((position.num_seen / self.max_samples, "max_samples"))
        if self.max_epochs is not None:
            shares.append(((position.epoch - 1) / self.max_epochs, "max_epochs"))
        return max(shares, default=(0.0, ""))


@dataclass(frozen=True)
class Period:
    """A period of updates, of whole epochs, or of time."""

    num_steps: int | None = None
    num_epochs: int | None = None
    seconds: float | None = None

    @classmethod
    def read(cls, text: str, *, key: str, steps_per_epoch: int | None) -> Period:
        """Return what a text like `500 steps`, `2 epochs`, `0.25 epochs` or `60 s` means.

        Raises:
            ConfigError: it is none of these, or a part of an epoch whose length nobody knows.
        """
        try:
            span = read_span(text, (Unit("s"), Unit("epochs"), Unit("steps")))
        except ValueError as error:
            raise ConfigError(f"{key} is {text!r}: {error}.") from None
        if span.number <= 0:
            raise ConfigError(f"{key} is {text!r}; it must be above 0.")
        if span.unit.name == "s":
            return cls(seconds=float(span.number))
        if span.unit.name == "steps":
            return cls(num_steps=int(span.number))
        if span.number == int(span.number):
            return cls(num_epochs=int(span.number))
        if steps_per_epoch is None:
            raise ConfigError(
                f"{key} is {text!r}, and nobody knows how many updates an epoch has; give steps."
            )
        return cls(num_steps=max(round(span.number * steps_per_epoch), 1))

    def steps(self, steps_per_epoch: int | None) -> int | None:
        """Return how many updates a period has; None where nobody knows."""
        if self.num_epochs is not None and steps_per_epoch is not None:
            return self.num_epochs * steps_per_epoch
        return self.num_steps

    def is_due(self, position: Position, *, is_pass_over: bool = False, since_s: float = 0.0) -> bool:
        """Whether the last update ends a period.

        Args:
            position: counts the updates and epochs.
            is_pass_over: whether it was the last one of its epoch.
            since_s: seconds since the period began.
        """
        if self.seconds is not None:
            return since_s >= self.seconds
        if self.num_steps is not None:
            return position.step % self.num_steps == 0
        return is_pass_over and position.epoch % (self.num_epochs or 1) == 0

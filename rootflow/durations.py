"""How long something lasts within a training: `500 steps`, `2 epochs`, or `5%` of the whole.

A parameter of type `Duration` is text to Python. The config check takes nothing else for it, and
writes each in its one spelling; `count_steps` makes it a number of optimizer updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, TypeAlias

from rootflow.errors import ConfigError
from rootflow.limits import Unit, as_number, read_quantity

Duration: TypeAlias = Annotated[str, Unit("steps"), Unit("epochs"), Unit("%")]

UNITS = (Unit("steps"), Unit("epochs"), Unit("%"))
"""Those of a `Duration`; a number without a unit has the first."""

_EXAMPLES = {"steps": "500 steps", "epochs": "2 epochs", "%": "5%", "s": "90 s"}


@dataclass(frozen=True)
class Span:
    """A duration taken apart; as text it has its one spelling."""

    number: int | float
    unit: Unit

    def __str__(self) -> str:
        return self.unit.text(self.number)


def read_span(value: str | int, units: Sequence[Unit] = UNITS) -> Span:
    """Return a duration taken apart.

    Args:
        value: text, or a whole number of the first unit.
        units: those that are allowed; the marks of the parameter's type.

    Raises:
        ValueError: it is none; says what is.
    """
    found = _find_span(str(value), units) if isinstance(value, str | int) else None
    if found is None:
        raise ValueError(f"{value!r} is not {describe_durations(units)}")
    return found


def describe_durations(units: Sequence[Unit] = UNITS) -> str:
    """Return which durations are allowed, by an example in each unit."""
    *others, last = (repr(_EXAMPLES.get(unit.name, unit.text(2))) for unit in units)
    return f"a duration like {', '.join(others)} or {last}" if others else f"a duration like {last}"


def count_steps(
    duration: Duration, *, key: str, steps_per_epoch: int | None, total_steps: int | None
) -> float:
    """Return how many optimizer updates a duration is; half an update is 0.5.

    Args:
        duration: in one of `UNITS`.
        key: the config's name of it, for the message.
        steps_per_epoch: updates of a whole epoch; None if nobody knows.
        total_steps: updates of the whole training; None if nobody knows.

    Raises:
        ConfigError: it is no duration, or one of a length that nobody knows.
    """
    try:
        span = read_span(duration)
    except ValueError:
        raise ConfigError(f"{key} is {duration!r}; it must be {describe_durations()}.") from None
    if span.unit.name == "steps":
        return span.number
    if span.unit.name == "epochs":
        if steps_per_epoch is None:
            raise ConfigError(
                f"{key} is {duration!r}, but the training data has no length, so nobody knows how many "
                "updates an epoch has. Give it in steps, as in '500 steps'."
            )
        return span.number * steps_per_epoch
    if total_steps is None:
        raise ConfigError(
            f"{key} is {duration!r}, a share of the training, whose length is not known. Give it in steps or "
            "epochs, as in '500 steps', or give trainer.max_epochs or trainer.max_steps."
        )
    return span.number * total_steps / 100


def _find_span(text: str, units: Sequence[Unit]) -> Span | None:
    number, word = read_quantity(text) or (Decimal(-1), "")
    if not word:
        is_count = "." not in text  # 1.0 may be meant as a share, and 1 step is not what it says
        return _span(number, units[0]) if is_count else None
    rates = ((unit, unit.per(word)) for unit in units)
    return next((_span(number * rate, unit) for unit, rate in rates if rate is not None), None)


def _span(exact: Decimal, unit: Unit) -> Span | None:
    """Return the span, unless it is negative, part of a step, or more than the whole."""
    most = 100 if unit.name == "%" else 10**15
    if not 0 <= exact <= most:
        return None
    number = as_number(exact)
    return None if unit.name == "steps" and isinstance(number, float) else Span(number, unit)

"""Types that carry a range and a unit, for the parameters of components.

`width: PositiveInt = 64` in a signature is all it takes: the config check reads the range from the
source of the component, and plain Python sees an `int`. `Annotated[int, Ge(2), Unit("epochs")]` with the
marks of the annotated-types package works the same way, and lets the config say `10 epochs`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Gt, Interval

_TIMES = {
    "ms": ("milliseconds", Decimal("0.001")),
    "s": ("seconds", Decimal(1)),
    "min": ("minutes", Decimal(60)),
    "h": ("hours", Decimal(3600)),
    "d": ("days", Decimal(86400)),
}
"""Units of time: their long names, and how many seconds each is."""

_NUMBER = r"[-+]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*(.*)", re.ASCII)
_LONGEST = 100
"""Characters of a quantity; longer text is no number that anyone means."""


@dataclass(frozen=True)
class Unit:
    """What a number counts, as a mark: `Annotated[int, Unit("epochs")]`; a plural, `%`, or a time."""

    name: str

    @property
    def is_time(self) -> bool:
        """Whether it is one of ms, s, min, h and d, which can be given for one another."""
        return self.name in _TIMES

    @property
    def long_name(self) -> str:
        """The name in words: `seconds` for `s`."""
        return _TIMES[self.name][0] if self.is_time else self.name

    def per(self, word: str) -> Decimal | None:
        """Return how many of this unit one ``word`` is: 60 seconds a `min`; None if it is no such unit."""
        if self.is_time:
            seconds = next((s for short, (long, s) in _TIMES.items() if _is(word, short, long)), None)
            return None if seconds is None else seconds / _TIMES[self.name][1]
        return Decimal(1) if _is(word, self.name) else None

    def text(self, number: float) -> str:
        """Return a number with this unit, the way it is spelt: `1 epoch`, `2 epochs`, `5%`."""
        if self.name == "%":
            return f"{number}%"
        return f"{number} {_singular(self.name) if number == 1 else self.name}"


PositiveInt: TypeAlias = Annotated[int, Ge(1)]
NonNegativeInt: TypeAlias = Annotated[int, Ge(0)]
PositiveFloat: TypeAlias = Annotated[float, Gt(0)]
NonNegativeFloat: TypeAlias = Annotated[float, Ge(0)]
Fraction: TypeAlias = Annotated[float, Interval(ge=0, le=1)]
"""The config may say it in percent, as it may for every range from 0 to 1."""
Epochs: TypeAlias = Annotated[int, Ge(1), Unit("epochs")]
Steps: TypeAlias = Annotated[int, Ge(1), Unit("steps")]
Samples: TypeAlias = Annotated[int, Ge(1), Unit("samples")]
Seconds: TypeAlias = Annotated[float, Gt(0), Unit("s")]
Auto: TypeAlias = Literal["auto"]
"""The one word for "the machine finds it out"."""


def read_quantity(text: str) -> tuple[Decimal, str] | None:
    """Return a number and the word after it: 10 and `epochs`, or 0.001 and nothing; None without a number."""
    stripped = text.strip()
    match = _QUANTITY.fullmatch(stripped) if len(stripped) <= _LONGEST else None
    return (Decimal(match[1]), match[2]) if match else None


def as_number(exact: Decimal) -> int | float:
    """Return a whole number as an int, any other as the nearest float."""
    number = int(exact) if exact == exact.to_integral_value() else float(exact)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _is(word: str, *names: str) -> bool:
    return any(word in (name, _singular(name)) for name in names)


def _singular(name: str) -> str:
    if len(name) < 3:  # s, ms
        return name
    return name.removesuffix("es" if name.endswith(("ches", "shes", "sses", "xes")) else "s")

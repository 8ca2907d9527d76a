"""Types that carry a range, for the parameters of components.

`width: PositiveInt = 64` in a signature is all it takes: the config check reads the range from the
source of the component, and plain Python sees an `int`. `Annotated[int, Ge(2)]` with the marks of
the annotated-types package works the same way.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Gt, Interval

PositiveInt: TypeAlias = Annotated[int, Ge(1)]
NonNegativeInt: TypeAlias = Annotated[int, Ge(0)]
PositiveFloat: TypeAlias = Annotated[float, Gt(0)]
NonNegativeFloat: TypeAlias = Annotated[float, Ge(0)]
Fraction: TypeAlias = Annotated[float, Interval(ge=0, le=1)]
Auto: TypeAlias = Literal["auto"]
"""The one word for "the machine finds it out"."""

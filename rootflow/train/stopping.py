"""Which evaluation is the best so far, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class EarlyStopping:
    """Follows one number over the evaluations. Usable in any loop; nothing but `update` is needed.

        stopping = EarlyStopping(higher_is_better=True, patience=3)
        ...
        is_best = stopping.update(accuracy)
        if stopping.should_stop: break

    A value that isn't finite is never the best.
    """

    higher_is_better: bool = True
    patience: int | None = None
    """Evaluations without improvement after which to stop; None never stops."""
    patience_frac: float = 0.0
    """Patience grows to this share of the evaluations so far: a long training moves slowly."""
    min_gain_frac: float = 0.0
    """Share of the value by which a better one must be better for patience to start anew."""

    best: float | None = None
    num_evaluations: int = 0
    num_since_best: int = 0
    """Evaluations since the last improvement that patience counts."""
    reference: float | None = None
    """What an improvement is measured against."""

    def update(self, value: float) -> bool:
        """Take the value of an evaluation; return whether none so far is better.

        Of equal values the later is the best, since its weights saw the lower learning rate; but it
        is no improvement that patience would wait for.
        """
        self.num_evaluations += 1
        if not math.isfinite(value):
            self.num_since_best += 1
            return False
        sign = 1 if self.higher_is_better else -1
        is_best = self.best is None or (value - self.best) * sign >= 0
        if is_best:
            self.best = value
        if self.reference is None or (value - self.reference) * sign > self.min_gain_frac * abs(
            self.reference
        ):
            self.reference, self.num_since_best = value, 0
        else:
            self.num_since_best += 1
        return is_best

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        if self.patience is None:
            return False
        grown = math.ceil(self.patience_frac * self.num_evaluations)
        return self.num_since_best >= max(self.patience, grown)

    def state_dict(self) -> dict[str, Any]:
        """Return what has been seen so far; the settings aren't in it."""
        return {name: getattr(self, name) for name in _SEEN}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for name in _SEEN:
            setattr(self, name, state[name])


_SEEN = ("best", "num_evaluations", "num_since_best", "reference")

"""Which evaluation is the best so far, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Follows one number over the evaluations. Usable in any loop; nothing but `update` is needed.

    A value that isn't finite is never the best.
    """

    higher_is_better: bool = True
    patience: int | None = None
    """Evaluations without improvement after which to stop; None never stops."""

    best: float | None = None
    num_since_best: int = 0

    def update(self, value: float) -> bool:
        """Take the value of an evaluation; return whether none so far is better.

        Of equal values the later is the best, since its weights saw the lower learning rate; but it
        is no improvement that patience would wait for.
        """
        if not math.isfinite(value):
            self.num_since_best += 1
            return False
        gain = 0.0 if self.best is None else (value - self.best) * (1 if self.higher_is_better else -1)
        if self.best is None or gain > 0:
            self.best, self.num_since_best = value, 0
            return True
        self.num_since_best += 1
        return gain == 0

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.num_since_best >= self.patience

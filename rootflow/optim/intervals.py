"""When a learning-rate scheduler takes its steps: after an update, an epoch or an evaluation.

torch's schedulers don't say it themselves; this table does, by what each class is mostly used for.
A scheduler of your own says it by an attribute: `interval = "step"`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast

from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

Interval: TypeAlias = Literal["step", "epoch", "evaluation"]

_INTERVALS: dict[type[LRScheduler], Interval] = {
    lr_scheduler.OneCycleLR: "step",
    lr_scheduler.CyclicLR: "step",
    lr_scheduler.CosineAnnealingLR: "step",
    lr_scheduler.PolynomialLR: "step",
    lr_scheduler.LambdaLR: "epoch",
    lr_scheduler.MultiplicativeLR: "epoch",
    lr_scheduler.StepLR: "epoch",
    lr_scheduler.MultiStepLR: "epoch",
    lr_scheduler.ConstantLR: "epoch",
    lr_scheduler.LinearLR: "epoch",
    lr_scheduler.ExponentialLR: "epoch",
    lr_scheduler.CosineAnnealingWarmRestarts: "epoch",
    lr_scheduler.ReduceLROnPlateau: "evaluation",
    LRScheduler: "epoch",  # a user's own class that doesn't say it: torch's convention
}


def interval_of(scheduler: LRScheduler | type[LRScheduler]) -> Interval:
    """Return after what the scheduler's `step` is to be called.

    `SequentialLR` and `ChainedScheduler` step all their members at once. If one of them counts
    updates, all of them do, and so do the milestones; as a class alone, they count epochs.
    """
    members = getattr(scheduler, "_schedulers", ())
    if members:
        return "step" if "step" in map(interval_of, members) else "epoch"
    own: Any = getattr(scheduler, "interval", None)
    if own is not None:
        return cast("Interval", own)
    scheduler_class = scheduler if isinstance(scheduler, type) else type(scheduler)
    return next((_INTERVALS[base] for base in scheduler_class.__mro__ if base in _INTERVALS), "epoch")

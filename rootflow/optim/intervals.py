"""When a learning-rate scheduler takes its steps: after an update, an epoch or an evaluation.

torch's schedulers don't say it themselves; this table does, by what each class is mostly used for.
A scheduler of your own says it by an attribute of its class, `interval = "step"`; an attribute of an
instance says it of any scheduler.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast, get_args

from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from rootflow.errors import ConfigError, did_you_mean

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

    Raises:
        ConfigError: its attribute `interval` is none.
    """
    own: Any = getattr(scheduler, "interval", None)
    if own is not None and own != "auto":
        return _checked(own, scheduler)
    members = getattr(scheduler, "_schedulers", ())
    if members:
        return "step" if "step" in map(interval_of, members) else "epoch"
    scheduler_class = scheduler if isinstance(scheduler, type) else type(scheduler)
    return next((_INTERVALS[base] for base in scheduler_class.__mro__ if base in _INTERVALS), "epoch")


def _checked(interval: Any, scheduler: LRScheduler | type[LRScheduler]) -> Interval:
    known = get_args(Interval)
    if interval not in known:
        owner = scheduler if isinstance(scheduler, type) else type(scheduler)
        raise ConfigError(
            f"{owner.__name__}.interval is {interval!r}; it must be {', '.join(map(repr, known[:-1]))} or "
            f"{known[-1]!r}.{did_you_mean(str(interval), known)}"
        )
    return cast("Interval", interval)

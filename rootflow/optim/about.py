"""Keys that every optimizer's and every scheduler's node in a config may have beside its component's own.

They are about the component, not for it: `rootflow.build.take_about` takes them off before it is called. One
that takes a parameter of the same name keeps that for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rootflow.durations import Duration
from rootflow.limits import Auto
from rootflow.optim.intervals import Interval
from rootflow.optim.parameter_groups import Group


@dataclass(frozen=True, kw_only=True)
class AboutOptimizer:
    """What is said of an optimizer beside its settings."""

    groups: dict[str, Group] = field(default_factory=dict)
    """parts of the model with settings of their own, by patterns of names; the last that matches counts"""


@dataclass(frozen=True, kw_only=True)
class AboutScheduler:
    """What is said of a scheduler beside its settings."""

    interval: Interval | Auto = "auto"
    """what it counts, and so after what it takes its steps; auto: what its class is mostly used for"""
    warmup: Duration | None = None
    """how long the learning rate rises from 0, as a factor on the scheduler's; null: it doesn't"""

"""What can watch a training: one small Protocol, called with one value each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rootflow.train.loop import StepReport


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """One evaluation on the validation data, at the end of an epoch."""

    step: int
    epoch: int
    metrics: Mapping[str, float]
    """E.g. `{"train/loss": 0.3, "val/loss": 0.4, "val/accuracy": 0.9}`."""
    monitor: str
    """The metric that decides which evaluation is the best."""
    is_best: bool
    elapsed_s: float
    """Time of this epoch, the evaluation included."""


class Hooks(Protocol):
    """Watches a training. Raising from a hook ends it."""

    def on_step(self, report: StepReport) -> None:
        """Called after every update. Reading `report.loss` waits for the device."""

    def on_evaluation(self, report: EvaluationReport) -> None:
        """Called after every evaluation."""

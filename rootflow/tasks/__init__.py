"""What a model is trained to do: batches to a loss and to measures."""

from __future__ import annotations

from rootflow.tasks.loss import LossTask
from rootflow.tasks.task import LossSum, Task

__all__ = ["LossSum", "LossTask", "Task"]

"""What a model is trained to do: batches to a loss and to measures."""

from __future__ import annotations

from rootflow.tasks.task import Task

__all__ = ["Task"]

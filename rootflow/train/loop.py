"""The updates of a training, one after the other, and evaluations.

**step** counts optimizer updates: 0 before the first, and the report of an update carries the count including
it. An update whose gradient isn't finite counts, too, though it changes nothing: the data has moved on.
**epoch** counts passes over the training data begun: 1 in the first.

An update doesn't wait for the device: its loss stays a tensor there until somebody reads it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rootflow.train.hooks import Call
from rootflow.train.objective import Logs

Update = Callable[[Any], tuple[Tensor, int, Logs]]
"""Applies one optimizer update to a batch: its loss, its number of samples, and what it logs."""

NUM_FIRST = 5
"""Updates at the beginning of a training whose losses are kept."""
NUM_RECENT = 20
"""Updates up to the last one whose losses are kept."""


@dataclass(slots=True)
class StepReport:
    """One update, just applied."""

    step: int
    epoch: int
    loss: Tensor
    """Mean over the samples of the update; a scalar on the device."""
    num_samples: int
    lr: float
    """Learning rate that the update used, of the first parameter group."""
    logs: Logs = field(default_factory=dict)
    """What the model's `training_step` said beside the loss."""


@dataclass
class Position:
    """Where in the data a training is, and the mean loss since the epoch began."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of the epoch that were trained on."""
    num_seen: int = 0
    """Samples that were trained on, in all epochs; one seen twice counts twice."""
    loss_sum: Tensor | float = 0.0
    num_samples: Tensor | int = 0
    """Samples whose loss is in the sum."""
    first: list[Tensor | float] = field(default_factory=list)
    """Losses of the first updates of the training."""
    recent: deque[Tensor | float] = field(default_factory=lambda: deque(maxlen=NUM_RECENT))
    """Losses of the last updates of this session."""

    def begin_epoch(self) -> None:
        """Count a new pass over the data."""
        self.epoch += 1
        self.batch, self.loss_sum, self.num_samples = 0, 0.0, 0

    def advance(self, loss: Tensor, num_samples: int) -> None:
        """Count an update. A loss that isn't finite stays out of the mean: its update was not applied."""
        self.step += 1
        self.batch += 1
        self.num_seen += num_samples
        value: Tensor | float
        if loss.is_cpu:
            value = loss.item()
            if math.isfinite(value):
                self.loss_sum += value * num_samples
                self.num_samples += num_samples
        else:
            value = loss
            is_finite = loss.isfinite()
            self.loss_sum = self.loss_sum + torch.where(is_finite, loss.float(), 0.0) * num_samples
            self.num_samples = self.num_samples + is_finite * num_samples
        self.recent.append(value)
        if self.step <= NUM_FIRST:
            self.first.append(value)

    def mean_loss(self) -> float:
        """Return the mean over the samples of the epoch so far; this waits for the device."""
        count = int(self.num_samples)
        return float(self.loss_sum) / count if count else math.nan


def train_steps(  # noqa: PLR0913  # each usable without the others
    batches: Iterable[Any],
    update: Update,
    position: Position,
    *,
    lr: Callable[[], float],
    after_step: Call | None = None,
    batch_start: Iterable[Call] = (),
    describe: Callable[[Any], str] = repr,
) -> Iterator[StepReport]:
    """Train on batches, yielding after every update.

    The caller decides what happens between updates, and may leave its `for` early.

    Args:
        batches: what is left of the epoch.
        update: applies one batch.
        position: counts.
        lr: tells the learning rate of the next update.
        after_step: advances a scheduler that counts updates.
        batch_start: called with each batch before its update.
        describe: tells what a batch is; a note on the exception that ends its update.
    """
    for batch in batches:
        for call in batch_start:
            call(batch)
        used_lr = lr()
        try:
            loss, num_samples, logs = update(batch)
        except Exception as error:
            if (shown := describe(batch)) not in str(error):
                error.add_note(f"step {position.step + 1}: {shown}")
            raise
        position.advance(loss, num_samples)
        if after_step is not None:
            after_step()
        yield StepReport(position.step, position.epoch, loss, num_samples, used_lr, logs)

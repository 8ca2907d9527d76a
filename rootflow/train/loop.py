"""The updates of a training, one after the other.

**step** counts optimizer updates applied: 0 before the first, and the report of an update carries
the count including it. **epoch** counts passes over the training data begun: 1 in the first.

Nothing here waits for the device: losses stay tensors on it until somebody reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from rootflow.errors import DivergedError
from rootflow.optim.intervals import interval_of
from rootflow.tasks import Task
from rootflow.train.precision import Arithmetic


class Loader(Sized, Iterable[Any], Protocol):
    """Batches `(inputs, targets)` on the device; `len()` of them an epoch.

    A `torch.utils.data.DataLoader` is one, too. `set_epoch(epoch)` is called where there is one.
    """


@dataclass(frozen=True, slots=True)
class StepReport:
    """One update, just applied."""

    step: int
    epoch: int
    loss: Tensor
    """Mean over the samples of the update; a scalar on the device."""
    num_samples: int
    lr: float
    """Learning rate that the update used, of the first parameter group."""


@dataclass
class Learner:
    """What an update needs: the model, its task, and how to apply gradients."""

    model: nn.Module
    task: Task
    optimizer: Optimizer
    scheduler: LRScheduler | None
    arithmetic: Arithmetic
    micro_batch_size: int | None = None
    """Samples per forward and backward pass; None passes each batch whole."""
    grad_clip_norm: float | None = None
    step: int = 0

    def update(self, inputs: Tensor, targets: Any) -> Tensor:
        """Apply one optimizer update; return its loss, the mean over the batch.

        The mean is over the samples, whatever the micro batch: memory never changes the
        mathematics.
        """
        num_samples = len(inputs)
        size = self.micro_batch_size or num_samples
        losses: list[Tensor] = []

        def evaluate_gradients() -> Tensor:
            """The closure that every torch optimizer takes; LBFGS calls it several times."""
            self.optimizer.zero_grad(set_to_none=True)
            total: Tensor | None = None
            for start in range(0, num_samples, size):
                part, wanted = inputs[start : start + size], _slice(targets, start, size)
                with self.arithmetic.autocast():
                    loss = self.task.loss(self.model(self.arithmetic.prepare(part)), wanted)
                loss = loss if size >= num_samples else loss * (len(part) / num_samples)
                loss.backward()  # type: ignore[no-untyped-call]
                total = loss.detach() if total is None else total + loss.detach()
            assert total is not None
            if self.grad_clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip_norm)
            losses.append(total)
            return total

        self.optimizer.step(evaluate_gradients)  # type: ignore[arg-type]  # torch: float; all take tensors
        self.step += 1
        self._advance("step")
        return losses[0]

    @property
    def lr(self) -> float:
        """Learning rate of the next update, of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def end_epoch(self) -> None:
        """Advance a scheduler that counts epochs."""
        self._advance("epoch")

    def end_evaluation(self, monitored: float) -> None:
        """Advance a scheduler that follows the monitored value."""
        self._advance("evaluation", monitored)

    def _advance(self, interval: str, monitored: float | None = None) -> None:
        if self.scheduler is None or interval_of(self.scheduler) != interval:
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(monitored)  # type: ignore[arg-type]
        else:
            self.scheduler.step()


def train_steps(learner: Learner, loader: Loader, epoch: int) -> Iterator[StepReport]:
    """Pass once over the data, yielding after every update.

    The caller decides what happens between updates, and may leave its `for` early.
    """
    set_epoch = getattr(loader, "set_epoch", None)
    if set_epoch is not None:
        set_epoch(epoch)
    learner.model.train()
    for inputs, targets in loader:
        lr = learner.lr
        loss = learner.update(inputs, targets)
        yield StepReport(learner.step, epoch, loss, len(inputs), lr)


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Loader, *, task: Task, arithmetic: Arithmetic) -> dict[str, float]:
    """Return the task's measures over all samples of a loader, each sample counted once.

    The model is left in the mode in which it came. The one wait for the device is at the end.
    """
    was_training = model.training
    model.eval()
    sums: dict[str, Tensor] = {}
    num_samples = 0
    try:
        for inputs, targets in loader:
            with arithmetic.autocast():
                outputs = model(arithmetic.prepare(inputs))
            for name, value in task.measure(outputs, targets).items():
                sums[name] = sums.get(name, torch.zeros_like(value, dtype=torch.float64)) + value
            num_samples += len(inputs)
    finally:
        model.train(was_training)
    return {name: float(value) / num_samples for name, value in sums.items()}


def check_finite(loss: Tensor | float, report: StepReport) -> float:
    """Return a loss as a number; this is where the host waits for the device.

    Args:
        loss: of one update, or a mean over several.
        report: the newest update, for the message.

    Raises:
        DivergedError: the loss is NaN or infinite.
    """
    value = float(loss)
    if not math.isfinite(value):
        raise DivergedError(
            f"the training loss is {value} at step {report.step} (epoch {report.epoch}, lr {report.lr:.3g}). "
            "Lower optimizer.lr, set trainer.grad_clip_norm=1, or look for NaN in the data."
        )
    return value


def _slice(targets: Any, start: int, size: int) -> Any:
    return targets[start : start + size] if isinstance(targets, Tensor) else targets

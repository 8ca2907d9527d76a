"""The updates of a training, one after the other.

**step** counts optimizer updates applied: 0 before the first, and the report of an update carries
the count including it. **epoch** counts passes over the training data begun: 1 in the first.

An update doesn't wait for the device: its loss stays a tensor there until somebody reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from rootflow.data.loaders import to_device
from rootflow.errors import DivergedError, RunError
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
    for batch in loader:
        inputs, targets = unpack(batch, learner.arithmetic.device)
        lr = learner.lr
        loss = learner.update(inputs, targets)
        yield StepReport(learner.step, epoch, loss, len(inputs), lr)


@torch.no_grad()  # not inference_mode: a model that keeps a tensor from here could not train on it
def evaluate(model: nn.Module, loader: Loader, *, task: Task, arithmetic: Arithmetic) -> dict[str, float]:
    """Return the task's measures over all samples of a loader, each sample counted once.

    Every submodule is left in the mode in which it came. The one wait for the device is at the end.
    """
    dtype = torch.float32 if arithmetic.device.type == "mps" else torch.float64  # which MPS has not
    sums: dict[str, Tensor] = {}
    num_samples = 0
    with evaluating(model):
        for batch in loader:
            inputs, targets = unpack(batch, arithmetic.device)
            with arithmetic.autocast():
                outputs = model(arithmetic.prepare(inputs))
            for name, value in task.measure(outputs, targets).items():
                sums[name] = sums.get(name, torch.zeros_like(value, dtype=dtype)) + value
            num_samples += len(inputs)
    return {name: float(value) / num_samples for name, value in sums.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in evaluation mode for a block; each submodule gets its own mode back after."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, was_training in modes.items():
            module.training = was_training


def unpack(batch: Any, device: torch.device) -> tuple[Tensor, Any]:
    """Return the inputs and targets of a batch, on the device.

    Raises:
        RunError: the batch isn't a pair, or its inputs aren't one tensor.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[0], Tensor):
        kinds = (
            [type(part).__name__ for part in batch]
            if isinstance(batch, tuple | list)
            else type(batch).__name__
        )
        raise RunError(
            f"a batch is {kinds}; the loop takes pairs (inputs, targets) whose inputs are one tensor. "
            "Let the data set return such pairs."
        )
    inputs, targets = to_device((batch[0], batch[1]), device)
    return inputs, targets


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
    """Take the samples of a micro batch out of tensors, or out of containers of them."""
    if isinstance(targets, Tensor):
        return targets[start : start + size]
    if isinstance(targets, dict):
        return {key: _slice(value, start, size) for key, value in targets.items()}
    return tuple(_slice(value, start, size) for value in targets) if isinstance(targets, tuple) else targets

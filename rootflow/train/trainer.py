"""The Trainer: how long to train, on what, and with which arithmetic. `fit` is the whole loop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rootflow.checkpoint import WeightKeeper
from rootflow.errors import ConfigError, DataError, RunError
from rootflow.limits import Auto, Epochs, PositiveFloat, Samples, Seconds, Steps, Unit
from rootflow.registry import register
from rootflow.tasks import Task
from rootflow.train.hooks import EvaluationReport, Hooks
from rootflow.train.loop import Learner, Loader, check_finite, evaluate, train_steps
from rootflow.train.precision import Arithmetic, find_channels_last, find_device, find_dtype
from rootflow.train.stopping import EarlyStopping


@dataclass(frozen=True)
class FitResult:
    """How a training ended. The model then has its last weights; the keeper has the best."""

    step: int
    epoch: int
    stop_reason: str
    last: dict[str, float]
    """Metrics of the last evaluation."""
    best: dict[str, float]
    """Metrics of the best evaluation, all of one step, with `step` and `epoch`."""


@register("trainer", "trainer")
@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains any nn.Module on any loader of `(inputs, targets)`."""

    max_epochs: Epochs | Auto | None = "auto"
    """passes over the data; auto: by the size of the data, or unlimited with max_steps; null: no limit"""

    max_steps: Steps | None = None
    """optimizer updates after which to stop; null: no limit"""

    max_time: Seconds | None = None
    """seconds of training after which to stop, or e.g. `90 min`; null: no limit"""

    patience: Annotated[int, Ge(1), Unit("evaluations")] | None = None
    """evaluations without improvement after which to stop; null: never"""

    batch_size: Samples | Auto = "auto"
    """samples per optimizer update, over all devices; for the loaders: `fit` takes theirs"""

    micro_batch_size: Samples | Auto = "auto"
    """samples per forward and backward pass on one device; changes memory, not the mathematics"""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps, ...; auto: the accelerator if there is one"""

    num_threads: Annotated[int, Ge(1), Unit("threads")] | Auto = "auto"
    """threads of a run on the CPU; auto: one where updates are small, else one a core; not set by `fit`"""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """format of the forward pass; auto: bf16 where the hardware multiplies it"""

    channels_last: bool | Auto = "auto"
    """memory order of images; auto: for models with 2-D convolutions"""

    grad_clip_norm: PositiveFloat | None = None
    """L2 norm of all gradients above which they are scaled down; null: never"""

    log_every: Steps = 10
    """updates between two rows of training metrics, and between two looks whether the loss is finite"""

    def arithmetic(self, model: nn.Module) -> Arithmetic:
        """Return how numbers are computed for a model, every `auto` made a value."""
        device, _ = find_device(self.device)
        dtype, _ = find_dtype(self.precision, device)
        channels_last = find_channels_last(model)[0] if self.channels_last == "auto" else self.channels_last
        return Arithmetic(device, dtype, channels_last)

    def num_steps(self, steps_per_epoch: int) -> int | None:
        """Return how many updates a training makes at most; None where only time or patience ends it.

        Raises:
            ConfigError: nothing limits it.
            DataError: an epoch has no update.
        """
        if steps_per_epoch < 1:
            raise DataError("the training loader has no batch; lower trainer.batch_size or bring more data.")
        by_epochs = self.max_epochs * steps_per_epoch if isinstance(self.max_epochs, int) else math.inf
        limit = min(by_epochs, self.max_steps or math.inf)
        if limit == math.inf and self.max_time is None and self.patience is None:
            raise ConfigError(
                "nothing ends the training: give trainer.max_epochs, max_steps, max_time or patience."
            )
        return None if limit == math.inf else int(limit)

    def fit(  # noqa: PLR0913  # what is trained, on what, how, and who watches: all the caller's
        self,
        model: nn.Module,
        train: Loader,
        val: Loader | None = None,
        *,
        task: Task,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        keeper: WeightKeeper | None = None,
        hooks: Sequence[Hooks] = (),
    ) -> FitResult:
        """Train ``model`` in place, evaluating after every epoch.

        Args:
            model: any module; already on its device, where the optimizer found its parameters.
            train: batches `(inputs, targets)`.
            val: the same, to evaluate on; None monitors the training loss instead.
            task: turns outputs and targets into a loss and metrics.
            optimizer: any torch optimizer over the model's parameters.
            scheduler: any torch scheduler; advanced per update, epoch or evaluation as its class wants.
            keeper: takes the weights of the best and of the last evaluation.
            hooks: called after every update and every evaluation.

        Raises:
            ConfigError: nothing would ever end the training.
            DivergedError: the loss is not finite; the weights are those after that update.
        """
        num_steps = self.num_steps(len(train))
        learner = self._learner(model, task, optimizer, scheduler)
        monitor = task.monitor if val is not None else "train/loss"
        stopping = EarlyStopping(task.higher_is_better and val is not None, self.patience)
        last: dict[str, float] = {}
        best: dict[str, float] = {}
        epoch, stop_reason = 0, ""
        training_since_s = time.monotonic()
        while not stop_reason:
            epoch += 1
            epoch_since_s = time.monotonic()
            loss_sum, num_samples = torch.zeros((), device=learner.arithmetic.device), 0
            for report in train_steps(learner, train, epoch):
                loss_sum += report.loss * report.num_samples
                num_samples += report.num_samples
                limit = self._limit_reached(report.step, num_steps, time.monotonic() - training_since_s)
                if report.step % self.log_every == 0 or limit:
                    check_finite(report.loss, report)
                for hook in hooks:
                    hook.on_step(report)
                if limit:
                    break
            learner.end_epoch()

            last = {"train/loss": check_finite(loss_sum / num_samples, report)}
            if val is not None:
                measured = evaluate(model, val, task=task, arithmetic=learner.arithmetic)
                last |= {f"val/{name}": value for name, value in measured.items()}
            if monitor not in last:
                raise RunError(f"the task monitors {monitor!r}, but measured only {', '.join(last)}.")
            learner.end_evaluation(last[monitor])
            is_best = stopping.update(last[monitor])
            if is_best:
                best = last | {"step": learner.step, "epoch": epoch}
            if keeper is not None:
                names = ("best", "last") if is_best else ("last",)
                keeper.keep(names, model, last | {"step": learner.step, "epoch": epoch})
            elapsed_s = time.monotonic() - epoch_since_s
            for hook in hooks:
                hook.on_evaluation(EvaluationReport(learner.step, epoch, last, monitor, is_best, elapsed_s))
            stop_reason = limit
            if stopping.should_stop and not limit:
                stop_reason = f"no improvement in {stopping.num_since_best} evaluations"
        return FitResult(learner.step, epoch, stop_reason, last, best)

    def _learner(
        self, model: nn.Module, task: Task, optimizer: Optimizer, scheduler: LRScheduler | None
    ) -> Learner:
        micro = None if self.micro_batch_size == "auto" else self.micro_batch_size
        arithmetic = self.arithmetic(model)
        arithmetic.place(model)
        return Learner(model, task, optimizer, scheduler, arithmetic, micro, self.grad_clip_norm)

    def _limit_reached(self, step: int, num_steps: int | None, elapsed_s: float) -> str:
        """Return which limit an update has reached; empty if none."""
        if step == num_steps:
            return f"{'max_steps' if step == self.max_steps else 'max_epochs'} reached"
        return "max_time reached" if self.max_time is not None and elapsed_s >= self.max_time else ""

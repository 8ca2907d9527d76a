"""The Trainer: how long to train, on what, and with which arithmetic. `fit` is the whole training."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from rootflow.checkpoint import Checkpoint, Checkpoints, WeightKeeper
from rootflow.data.loaders import Loader, as_loader, full_batch_size
from rootflow.errors import ConfigError, DataError
from rootflow.limits import Auto, Epochs, Fraction, PositiveFloat, Samples, Seconds, Steps, Unit
from rootflow.optim.build_optimizer import OptimizerChoice, groups_of
from rootflow.optim.build_scheduler import SchedulerChoice
from rootflow.optim.freezing import Freezing
from rootflow.optim.scheduler_steps import SchedulerSteps, follows_monitored
from rootflow.registry import register
from rootflow.tasks import LossTask, Task
from rootflow.train.ema import Ema, ema_decay
from rootflow.train.guard import Guard
from rootflow.train.hooks import Events
from rootflow.train.learner import Learner
from rootflow.train.length import EvalEvery, Limits, Period, SaveEvery
from rootflow.train.loop import train_steps
from rootflow.train.monitor import find_direction
from rootflow.train.objective import Logs, Objective
from rootflow.train.precision import Arithmetic, find_channels_last, find_device, find_dtype
from rootflow.train.provided import find_loader, find_optimizers
from rootflow.train.session import Session
from rootflow.train.state import TrainState
from rootflow.train.stopping import EarlyStopping

_BATCH_SIZE = 32
"""Of data sets, where `batch_size` is `auto` and nobody has found a better one."""
_MOST_EPOCHS = 1_000
"""At which a training of no set length ends, improving or not."""
_OPEN_PATIENCE = 3
"""Evaluations, growing to 15 % of those so far; a gain below 0.2 % is none."""
_OPEN_PATIENCE_STEPS = 500
"""Updates that patience lasts at least: on the digits, of 80 updates an epoch, 7 evaluations gained 0.2
points of test accuracy over 3 (six seeds), and 13 no more."""


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
    num_skipped: int = 0
    """Updates whose gradient was not finite, and so was not applied."""
    ema: Ema | None = None
    """The averaged weights, where there are any: `with result.ema.applied(): ...`."""
    best_weights: dict[str, Any] | None = None
    """Those of the best evaluation, for `model.load_state_dict`; None where a keeper has them."""


@register("trainer", "trainer")
@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains any nn.Module on any data."""

    max_epochs: Epochs | Auto | None = "auto"
    """passes over the data; auto: if nothing else ends it, until it stops improving; null: no limit"""

    max_steps: Steps | None = None
    """optimizer updates after which to stop; null: no limit"""

    max_samples: Samples | None = None
    """samples trained on after which to stop; null: no limit"""

    max_time: Seconds | None = None
    """seconds of training after which to stop, or e.g. `90 min`; null: no limit"""

    patience: Annotated[int, Ge(1), Unit("evaluations")] | Auto | None = "auto"
    """evaluations without improvement until the end; auto: 3 or more if nothing else ends it; null: no end"""

    monitor: str = "auto"
    """metric that says which weights are the best, e.g. `val/accuracy`; auto: as the task says"""

    monitor_mode: Literal["auto", "min", "max"] = "auto"
    """whether a lower or a higher value is better; auto: by the name of the metric"""

    eval_every: EvalEvery = "1 epoch"
    """how often to evaluate: `1 epoch`, `0.25 epochs` or `500 steps`; the end always"""

    save_every: SaveEvery = "60 s"
    """how often to write a checkpoint to resume from: `60 s`, `500 steps` or `1 epoch`; the end always"""

    batch_size: Samples | Auto = "auto"
    """samples per optimizer update, over all devices; a ready loader has its own; auto is 32 in `fit`"""

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

    compile: bool | Auto = "auto"
    """torch.compile; auto: on CUDA, for trainings that last minutes"""

    deterministic: bool = False
    """only kernels that give the same bits each time, for an exact resume on a GPU; not set by `fit`"""

    grad_clip_norm: PositiveFloat | None = None
    """L2 norm of all gradients above which they are scaled down; null: never"""

    max_lr_halvings: Annotated[int, Ge(0), Unit("times")] = 3
    """how often a training that diverged goes back to its last good state with half the learning rate"""

    ema_decay: Fraction | Auto | None = "auto"
    """share of the averaged weights kept in each update; auto: where no length is set; null: no average"""

    log_every: Steps = 50
    """updates between two rows of training metrics, and between two looks whether gradients are finite"""

    def arithmetic(self, model: nn.Module) -> Arithmetic:
        """Return how numbers are computed for a model, every `auto` made a value."""
        device, _ = find_device(self.device)
        dtype, _ = find_dtype(self.precision, device)
        channels_last = find_channels_last(model)[0] if self.channels_last == "auto" else self.channels_last
        return Arithmetic(device, dtype, channels_last)

    @property
    def is_open(self) -> bool:
        """Whether a training lasts until it stops improving."""
        limits = (self.max_steps, self.max_samples)
        has_limit = isinstance(self.max_epochs, int) or any(limit is not None for limit in limits)
        return not has_limit and self.patience is not None

    def limits(self, train: Loader) -> Limits:
        """Return how long a training on some data lasts at most.

        Raises:
            ConfigError: nothing ends it.
            DataError: an epoch has no update.
        """
        if train.num_batches == 0:
            raise DataError("the training loader has no batch; lower trainer.batch_size or bring more data.")
        others = (self.max_steps, self.max_samples, self.max_time)
        if not self.is_open and not isinstance(self.max_epochs, int) and all(o is None for o in others):
            raise ConfigError(
                "nothing ends the training: give trainer.max_epochs, max_steps, max_samples, max_time or "
                "patience."
            )
        return Limits(
            max_epochs=self.max_epochs if isinstance(self.max_epochs, int) else None,
            most_epochs=_MOST_EPOCHS if self.is_open and self.max_epochs == "auto" else None,
            max_steps=self.max_steps,
            max_samples=self.max_samples,
            max_time=self.max_time,
            steps_per_epoch=train.num_batches,
            batch_size=full_batch_size(train),
        )

    def fit(  # noqa: PLR0913  # what is trained, on what, how, and who watches: all the caller's
        self,
        model: nn.Module,
        train: Any = None,
        val: Any = None,
        *,
        loss: Callable[..., Tensor] | str | None = None,
        task: Task | None = None,
        optimizer: OptimizerChoice | None = None,
        scheduler: SchedulerChoice | None = None,
        keeper: WeightKeeper | None = None,
        checkpoints: Checkpoints | None = None,
        resume: Checkpoint | None = None,
        hooks: Sequence[object] = (),
        seed: int = 0,
    ) -> FitResult:
        """Train ``model`` in place.

        Args:
            model: any module. Methods of its own that have a known name are used, see
                `rootflow.train.objective` and `rootflow.train.hooks`; what follows is for what it lacks.
            train: data set, list of samples, generator function, or a ready loader, which is used as it is.
            val: the same, to evaluate on; None monitors the training loss instead.
            loss: `loss(outputs, targets)`, the mean over the samples; or a name in torch.nn.functional.
            task: a loss with measures, instead.
            optimizer: an optimizer over the model's parameters; or a class, function or name to make one.
            scheduler: the same; advanced per update, epoch or evaluation as its class wants.
            keeper: takes the weights of the best and of the last evaluation.
            checkpoints: where states to resume from are written.
            resume: the state to go on from.
            hooks: objects with methods of the names in `rootflow.train.hooks`.
            seed: of the order of a data set's samples; a ready loader has its own.

        Raises:
            ConfigError: nothing would ever end the training, or two things contradict one another.
            RunError: the batches don't suit the model and the loss.
            DivergedError: gradients weren't finite for several updates, at half the learning rate as often as
                it may be halved; the weights are those before them.
            KeyboardInterrupt, SystemExit: a signal came; the state is saved, if there are checkpoints.
        """
        session = self.open_session(
            model,
            train,
            val,
            task=_task_of(model, loss, task),
            optimizer=optimizer,
            scheduler=scheduler,
            hooks=hooks,
            keeper=keeper,
            checkpoints=checkpoints,
            seed=seed,
        )
        if self.compile is True:
            session.compile_model()
        if resume is not None:
            session.resume(resume)
        state = session.state
        with session.running():
            while not state.stop_reason:
                with session.guarded():
                    self.train_epoch(session)
                    self._evaluate_if_due(session)
                    if state.phase == "evaluating":
                        session.end_epoch()
        num_skipped = int(session.learner.num_skipped)
        return FitResult(
            state.step,
            state.epoch,
            state.stop_reason,
            state.last,
            state.best,
            num_skipped,
            state.ema,
            session.best_weights,
        )

    def train_step(self, session: Session, batch: Any) -> tuple[Tensor, int, Logs]:
        """Apply one update; return its loss, its number of samples, and what is logged beside it."""
        return session.learner.update(batch, session.state.position.batch)

    def train_epoch(self, session: Session) -> None:
        """Train on what is left of the epoch's data, until a limit is reached."""
        state, events, learner = session.state, session.events, session.learner
        if state.phase == "evaluating" or (state.step and session.limit()):  # resumed there
            return
        if state.phase == "training":  # resumed between two updates, at an evaluation maybe
            self._evaluate_if_due(session)
            if state.stop_reason:
                return
        batches = session.batches()
        session.set_modes()
        for report in train_steps(
            batches,
            functools.partial(self.train_step, session),
            state.position,
            lr=lambda: learner.lr,
            after_step=state.scheduler.after_step,
            batch_start=events.batch_start,
            describe=learner.objective.describe,
        ):
            if report.step % self.log_every == 0 or learner.may_have_diverged:
                session.check()
            for call in events.batch_end:
                call(report)
            if session.limit():
                if session.is_last_batch():
                    session.end_pass()
                return
            session.boundary()
            if session.is_evaluation_due():
                self._evaluate_if_due(session)
                if state.stop_reason:
                    return
        session.end_pass()

    def val_epoch(self, session: Session) -> Mapping[str, float]:
        """Return what is measured of the model, as it is in this evaluation, by names without `val/`."""
        return session.measure()

    def _evaluate_if_due(self, session: Session) -> None:
        limit = session.limit()
        if session.is_evaluation_due(limit):
            session.evaluate(functools.partial(self.val_epoch, session))
        session.settle(limit)

    def open_session(  # noqa: PLR0913  # see `fit`
        self,
        model: nn.Module,
        train: Any,
        val: Any,
        *,
        task: Task | None = None,
        optimizer: OptimizerChoice | None = None,
        scheduler: SchedulerChoice | None = None,
        hooks: Sequence[object] = (),
        keeper: WeightKeeper | None = None,
        checkpoints: Checkpoints | None = None,
        seed: int = 0,
    ) -> Session:
        """Return everything that a training needs, ready for its first update."""
        if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
            raise ConfigError("the model has lazy modules that saw no batch yet; pass one through it first.")
        arithmetic = self.arithmetic(model)
        arithmetic.place(model)
        train_loader, val_loader = self._loaders(model, train, val, device=arithmetic.device, seed=seed)
        limits = self.limits(train_loader)
        steps_per_epoch = limits.steps_per_epoch
        eval_every = Period.read(self.eval_every, key="trainer.eval_every", steps_per_epoch=steps_per_epoch)
        monitor, higher_is_better = find_direction(
            self.monitor, self.monitor_mode, task, model=model, has_val=val_loader is not None
        )
        optimizers, schedulers = find_optimizers(
            model, optimizer, scheduler, limits=limits, higher_is_better=higher_is_better
        )
        if monitor is None and any(map(follows_monitored, schedulers)):
            raise ConfigError(
                "the scheduler follows the monitored value, and what the model's own validation measures is "
                "not known beforehand: set trainer.monitor, e.g. 'val/loss'."
            )
        if optimizer is not None and (groups := groups_of(optimizer)):
            hooks = [Freezing(model, groups), *hooks]
        ema = self._ema(model, steps_per_epoch)
        events = Events.of(model, hooks)
        learner = Learner(
            Objective(model, task),
            optimizers,
            arithmetic=arithmetic,
            micro_batch_size=None if self.micro_batch_size == "auto" else self.micro_batch_size,
            grad_clip_norm=self.grad_clip_norm,
            ema=ema,
        )
        stopping = self._stopping(eval_every.steps(steps_per_epoch), higher_is_better=higher_is_better)
        state = TrainState(model, optimizers, SchedulerSteps(schedulers), learner, ema, stopping, hooks)
        is_one_pass = getattr(train_loader, "is_one_pass", False)  # what can't begin anew can't go back
        session = Session(
            state=state,
            learner=learner,
            events=events,
            train=train_loader,
            val=val_loader,
            task=task,
            limits=limits,
            monitor=monitor,
            monitor_mode=self.monitor_mode,
            eval_every=eval_every,
            save_every=Period.read(
                self.save_every, key="trainer.save_every", steps_per_epoch=steps_per_epoch
            ),
            guard=Guard(state, 0 if is_one_pass else self.max_lr_halvings),
            compile=False if self.compile == "auto" and self.deterministic else self.compile,
            keeper=keeper,
            checkpoints=checkpoints,
        )
        learner.after_backward = tuple(functools.partial(call, session) for call in events.after_backward)
        learner.halve_when_out_of_memory(session.note_halving)
        return session

    def _loaders(
        self, model: nn.Module, train: Any, val: Any, *, device: torch.device, seed: int
    ) -> tuple[Loader, Loader | None]:
        batch_size = _BATCH_SIZE if self.batch_size == "auto" else self.batch_size
        load = functools.partial(as_loader, batch_size=batch_size, device=device, seed=seed)
        found = find_loader(model, val, "val")
        return (
            load(find_loader(model, train, "train"), is_train=True),
            None if found is None else load(found, is_train=False),
        )

    def _ema(self, model: nn.Module, steps_per_epoch: int | None) -> Ema | None:
        if self.ema_decay is None or (self.ema_decay == "auto" and not self.is_open):
            return None
        return Ema(model, ema_decay(steps_per_epoch) if self.ema_decay == "auto" else self.ema_decay)

    def _stopping(self, steps_per_evaluation: int | None, *, higher_is_better: bool) -> EarlyStopping:
        if self.patience != "auto":
            return EarlyStopping(higher_is_better, self.patience)
        if not self.is_open:
            return EarlyStopping(higher_is_better)
        by_steps = math.ceil(_OPEN_PATIENCE_STEPS / (steps_per_evaluation or _OPEN_PATIENCE_STEPS))
        patience = max(_OPEN_PATIENCE, by_steps)
        return EarlyStopping(higher_is_better, patience, patience_frac=0.15, min_gain_frac=0.002)


def _task_of(model: nn.Module, loss: Callable[..., Tensor] | str | None, task: Task | None) -> Task | None:
    if loss is not None and task is not None:
        raise ConfigError("fit got both loss and task; give one: a task is a loss with measures.")
    if loss is not None and callable(getattr(model, "training_step", None)):
        raise ConfigError(
            f"fit got a loss, but {type(model).__name__}.training_step computes its own; leave loss away."
        )
    return LossTask(loss) if loss is not None else task

"""One call of `Trainer.fit`: what it was given, how far it is, and what is due next."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from rootflow.checkpoint import Checkpoint, Checkpoints, WeightKeeper
from rootflow.data.loaders import Loader
from rootflow.errors import CheckpointError, DataError, DivergedError
from rootflow.interrupts import Interrupts
from rootflow.limits import Auto
from rootflow.tasks import Task
from rootflow.train.compiling import compile_in_place, is_compiling_worth
from rootflow.train.evaluation import evaluate
from rootflow.train.going_on import peak_lr, without_end
from rootflow.train.guard import Guard
from rootflow.train.hooks import Adjustment, Call, EvaluationReport, Events
from rootflow.train.learner import Learner
from rootflow.train.length import Limits, Period
from rootflow.train.methods import method_of
from rootflow.train.monitor import Mode, check_measured, choose_monitor, is_higher_better
from rootflow.train.seeding import generator_states, keep_generators, set_generator_states
from rootflow.train.state import TrainState

_MOST_FAILED_SAVES = 3
_COOLDOWN_FRAC = 0.25
"""Of the updates so far, at least two epochs: 10 to 20 % of the whole is enough (Hägele et al. 2024)."""

_log = logging.getLogger(__name__)


@dataclass
class Session:
    """A training that is running; what `Trainer.train_epoch` and its siblings work on."""

    state: TrainState
    learner: Learner
    events: Events
    train: Loader
    val: Loader | None
    task: Task | None
    limits: Limits
    monitor: str | None
    """The metric that decides which evaluation is the best; None until the first one."""
    monitor_mode: Mode
    eval_every: Period
    save_every: Period
    guard: Guard
    compile: bool | Auto = False
    keeper: WeightKeeper | None = None
    checkpoints: Checkpoints | None = None
    interrupts: Interrupts = field(default_factory=Interrupts)

    best_weights: dict[str, Any] | None = None
    """Those of the best evaluation, on the host, where there is no keeper to have them."""

    def __post_init__(self) -> None:
        self._began_s = self._saved_s = self._evaluated_s = time.monotonic()
        self._elapsed_before_s = 0.0
        self._num_failed_saves = 0
        self._wants_save = False
        budgets = (self.limits.max_time, self.limits.max_samples, self.limits.max_epochs)
        self._has_open_budget = self.limits.num_steps is None and any(b is not None for b in budgets)
        self._resumed_generators: dict[str, Any] | None = None
        self.state.loader_generators = self.train.generators
        if not self.state.model.training:  # it came from an evaluation
            self.state.model.train()
        self._modes = [(module, module.training) for module in self.state.model.modules()]

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take the state of a checkpoint; its generators follow when the hooks have begun."""
        has_ended = checkpoint.state["progress"]["stop_reason"]
        self.state.load_state_dict(without_end(checkpoint.state) if has_ended else checkpoint.state)
        if self.state.is_compiled:
            compile_in_place(self.state.model)
        self._elapsed_before_s = self.state.elapsed_s
        self._resumed_generators = checkpoint.state["generators"]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Call the hooks of start and end, and end at a boundary when a signal comes."""
        with self.interrupts.listening():
            try:
                self._call(self.events.run_start)
                if self._resumed_generators is not None:
                    set_generator_states(self._resumed_generators, self.state.loader_generators)
                self.guard.keep()
                yield
                if self.interrupts.pending is not None:
                    self.interrupts.leave()
                self.save()
                self._call(self.events.run_end)
            except BaseException as error:
                try:
                    if self.interrupts.pending is not None and isinstance(
                        error, KeyboardInterrupt | SystemExit
                    ):
                        self.save(must=True)
                except (CheckpointError, DivergedError) as failure:  # the signal is still what ended it
                    _log.warning("%s", failure)
                finally:
                    for call in self.events.exception:
                        call(error)
                raise

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Where the block diverges, go back to the last good state, with half the learning rate.

        Raises:
            DivergedError: that was done as often as it may be, or there is no such state.
        """
        reason = ""
        try:
            yield
        except DivergedError as error:
            if not self.guard.can_go_back:
                raise
            reason = str(error).partition(";")[0]
        if reason:  # outside of the `except`, which holds the batch and all that was made of it
            self._go_back(reason)

    def _go_back(self, reason: str) -> None:
        """Take the last good state as a resume does; what isn't the training's own progress stays."""
        state, halved = self.state, self.guard.halve()
        step, epoch, old_lr = state.step, state.epoch, peak_lr(state.optimizers[0].param_groups[0])
        best, best_value, is_compiled = state.best, state.stopping.best, state.is_compiled
        try:
            state.load_state_dict(halved)
        except CheckpointError as error:  # a hook has given the optimizer more to train since, say
            raise DivergedError(f"{reason}, and the last good state can't be taken back: {error}") from error
        state.best, state.stopping.best, state.is_compiled = best, best_value, is_compiled
        if state.phase == "training" and state.epoch != epoch:
            self._call(self.events.epoch_start)
        self.learner.find_parameters()
        set_generator_states(halved["generators"], state.loader_generators)
        new_lr = peak_lr(state.optimizers[0].param_groups[0])
        told = f"{reason}; back to step {state.step} with half the learning rate, {new_lr:.4g}"
        self._tell(Adjustment(step, "optimizer.lr", old_lr, new_lr, told))
        self.save()

    def note_halving(self, old: int, new: int) -> None:
        """Tell that the update which is being made ran out of memory, and what was done about it."""
        reason = f"out of memory at {old} samples; micro batch {new} from here on, the update was run again"
        if any(isinstance(module, _BatchNorm) and module.training for module in self.state.model.modules()):
            reason += f"; BatchNorm now takes the statistics of {new} samples"
        self._tell(Adjustment(self.step + 1, "trainer.micro_batch_size", old, new, reason))
        self._wants_save = True  # a resume from before would round otherwise

    def _tell(self, adjustment: Adjustment) -> None:
        if not self.events.adjustment:
            _log.warning("step %d: %s", adjustment.step, adjustment.reason)
        for call in self.events.adjustment:
            call(adjustment)

    def _call(self, calls: Iterable[Call]) -> None:
        for call in calls:
            call(self)

    @property
    def step(self) -> int:
        """Optimizer updates so far."""
        return self.state.step

    @property
    def epoch(self) -> int:
        """The epoch that is trained, from 1; 0 before the first."""
        return self.state.epoch

    def elapsed_s(self) -> float:
        """Return the time spent training, in all sessions."""
        return self._elapsed_before_s + time.monotonic() - self._began_s

    def batches(self) -> Iterator[Any]:
        """Begin the next pass over the training data, or go on within one that a checkpoint interrupted."""
        state, position = self.state, self.state.position
        if state.phase != "training":
            position.begin_epoch()
            state.phase = "training"
            self._call(self.events.epoch_start)
            self.learner.find_parameters()
            state.pass_generators = generator_states(self.train.generators)
            self.train.set_epoch(position.epoch)
            return iter(self.train)
        with keep_generators(state.loader_generators):
            set_generator_states(state.pass_generators, self.train.generators)
            self.train.set_epoch(position.epoch, position.batch)
            return iter(self.train)  # a foreign loader reads again what was trained on, and so draws again

    def set_modes(self) -> None:
        """Put each submodule in the mode in which it came, for training: a BatchNorm in eval() stays so."""
        for module, is_training in self._modes:
            module.training = is_training
        _switch(self.state.optimizers, "train")

    def is_last_batch(self) -> bool:
        """Whether the last update was, as far as can be told, on the last batch of its epoch."""
        return self.train.num_batches is not None and self.state.position.batch >= self.train.num_batches

    def end_pass(self) -> None:
        """Note that all batches of the epoch were trained on."""
        if not self.state.position.batch:
            raise DataError(f"the training data has no batch in epoch {self.state.epoch}.")
        self.state.phase = "evaluating"
        self.state.scheduler.after_epoch()

    def end_epoch(self) -> None:
        """Note that the epoch is over, its evaluation included."""
        state = self.state
        state.phase = "over"
        if not state.is_compiled and is_compiling_worth(
            self.compile,
            self.learner.arithmetic.device,
            step=state.step,
            elapsed_s=self.elapsed_s(),
            num_steps=self.limits.num_steps,
        ):
            self.compile_model()
        self._call(self.events.epoch_end)
        if not state.stop_reason:
            self.boundary(is_pass_over=True)

    def compile_model(self) -> None:
        """Compile the model's forward pass."""
        compile_in_place(self.state.model)
        self.state.is_compiled = True

    def check(self) -> None:
        """Look whether the training has diverged; this waits for the device.

        Raises:
            DivergedError: it has. The weights are those before updates whose gradient was not finite.
        """
        self.learner.check(self.state.step)
        self.guard.check()

    def limit(self) -> str:
        """Return which limit the last update has reached; empty if none."""
        state = self.state
        if state.decay_end is not None and state.step >= state.decay_end:
            return f"{state.decay_reason}; cooled down"
        elapsed_s = self.elapsed_s() if self.limits.max_time is not None else 0.0
        return self.limits.reached(
            state.position, is_pass_over=state.phase != "training", elapsed_s=elapsed_s
        )

    def is_evaluation_due(self, limit: str = "") -> bool:
        """Whether the last update is one after which to evaluate."""
        state = self.state
        is_due = limit or self.eval_every.is_due(state.position, is_pass_over=state.phase == "evaluating")
        return bool(is_due) and state.evaluated_step != state.step

    def measure(self) -> dict[str, float]:
        """Return what the validation data says of the model as it is; nothing without such data."""
        if self.val is None:
            return {}
        batches, arithmetic = self.interrupts.watch(self.val), self.learner.arithmetic
        return evaluate(self.state.model, batches, arithmetic=arithmetic, task=self.task)

    def evaluate(self, measure: Callable[[], Mapping[str, float]]) -> None:
        """Measure the model, with its averaged weights while those are the better ones, and judge it."""
        state, position = self.state, self.state.position
        self.check()
        self._call(self.events.pre_performance_check)
        averaged = state.ema is not None and state.decay_end is None
        metrics = {"train/loss": position.mean_loss()}
        with state.ema.applied() if state.ema is not None and averaged else nullcontext():
            with (
                keep_generators(self.val.generators if self.val is not None else ()),
                self._evaluated_weights(),
            ):
                measured = measure()
            metrics |= {f"val/{name}": value for name, value in measured.items()}
            state.last = metrics
            state.evaluated_step = state.step
            value = self._monitored(metrics)
            is_best = self._judge(value, metrics)
        report = EvaluationReport(
            state.step,
            state.epoch,
            metrics,
            self.monitor or "",
            is_best,
            self._time_since_evaluation(),
            "ema" if averaged else "model",
        )
        for call in self.events.post_performance_check:
            call(report)
        if math.isfinite(value):
            self.guard.keep()

    @contextmanager
    def _evaluated_weights(self) -> Iterator[None]:
        """Let a schedule-free optimizer, which evaluates at other weights than it trains, put those in."""
        _switch(self.state.optimizers, "eval")
        try:
            yield
        finally:
            _switch(self.state.optimizers, "train")

    def settle(self, limit: str) -> None:
        """Decide after an evaluation: go on, cool down, or end."""
        state = self.state
        state.stop_reason = limit
        if limit or state.decay_end is not None or not state.stopping.should_stop:
            return
        reason = f"no improvement in {state.stopping.num_since_best} evaluations"
        per_epoch = state.step / max(state.epoch, 1)
        if not self._begin_cooldown(reason, round(max(2 * per_epoch, _COOLDOWN_FRAC * state.step))):
            state.stop_reason = reason

    def boundary(self, *, is_pass_over: bool = False) -> None:
        """Between two updates: save and cool down where that is due, and leave where a signal asks for it.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after SIGTERM or SIGUSR1.
        """
        if self.interrupts.pending is not None:
            self.interrupts.leave()
        since_s = time.monotonic() - self._saved_s
        is_due = self.save_every.is_due(self.state.position, is_pass_over=is_pass_over, since_s=since_s)
        if is_due or self._wants_save:
            self.save()
        if self._has_open_budget and self.state.decay_end is None:
            self._cool_down_in_time()

    def save(self, label: str | None = None, *, must: bool = False) -> None:
        """Write a checkpoint; one that can't be written, thrice in a row, ends the training.

        In doubt it holds the last good state, to which the guard may be about to go back.

        Args:
            label: keeps this one for good.
            must: raise at the first failure.

        Raises:
            CheckpointError: it can't be written; what was saved before is untouched.
        """
        if self.checkpoints is None:
            return
        self._saved_s, self._wants_save = time.monotonic(), False
        self.learner.check(self.state.step)
        if not self._has_finite_weights():
            _log.warning("step %d is not saved: weights are not finite", self.state.step)
            return
        self.state.elapsed_s = self.elapsed_s()
        with self._surviving_failed_saves(must=must):
            if self.keeper is not None:
                self.keeper.flush()  # the best weights that the state speaks of are then on the disk, too
            self._call(self.events.pre_checkpoint)
            state = self.guard.good_state or self.state.state_dict()
            state = {**state, "clock": {"elapsed_s": self.state.elapsed_s}}
            path = self.checkpoints.save(state["progress"]["step"], state, label=label)
            self._num_failed_saves = 0
            for call in self.events.checkpoint:
                call(path)

    @contextmanager
    def _surviving_failed_saves(self, *, must: bool = False) -> Iterator[None]:
        """Let the training go on where a disk is full, and end it when that has lasted."""
        try:
            yield
        except CheckpointError as error:
            self._num_failed_saves += 1
            if must or self._num_failed_saves >= _MOST_FAILED_SAVES:
                raise
            _log.warning("%s Training goes on.", error)

    def _cool_down_in_time(self) -> None:
        """Begin the cooldown when three quarters are spent of a budget that no schedule can count on."""
        state = self.state
        share, budget = self.limits.spent(state.position, elapsed_s=self.elapsed_s())
        if 1 - _COOLDOWN_FRAC <= share < 1:
            rest = state.step * (1 / share - 1)
            # the speed so far may not last: a fall that time cuts off would end above 0
            self._begin_cooldown(budget, math.ceil(rest * (0.9 if budget == "max_time" else 1.0) - 1e-6))

    def _monitored(self, metrics: dict[str, float]) -> float:
        """Return the value of an evaluation that decides; NaN where weights are not finite.

        Raises:
            DivergedError: it isn't finite, or weights aren't, and the guard can go back.
        """
        if self.monitor is None:
            self.monitor = choose_monitor(metrics, self.task)
            is_higher = is_higher_better(self.monitor, self.monitor_mode, self.task)
            self.state.stopping.higher_is_better = is_higher
        check_measured(self.monitor, metrics)
        has_finite_weights = self._has_finite_weights()
        value = metrics[self.monitor] if has_finite_weights else math.nan
        self.guard.check_evaluation(self.monitor, value, has_finite_weights=has_finite_weights)
        if not math.isfinite(value):
            _log.warning("step %d: %s is %s, which is never the best", self.step, self.monitor, value)
        return value

    def _judge(self, value: float, metrics: dict[str, float]) -> bool:
        """Compare an evaluation with those before, and keep its weights."""
        state = self.state
        state.scheduler.after_evaluation(value)
        is_best = state.stopping.update(value)
        stamped = metrics | {"step": state.step, "epoch": state.epoch}
        if is_best:
            state.best = stamped
            if self.keeper is None:
                self.best_weights = {
                    name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
                    for name, value in state.model.state_dict().items()
                }
        if self.keeper is not None:
            with self._surviving_failed_saves():
                self.keeper.keep(("best", "last") if is_best else ("last",), state.model, stamped)
        return is_best

    def _has_finite_weights(self) -> bool:
        """Whether all weights are finite, with one wait for the device."""
        flags = [parameter.isfinite().all() for parameter in self.state.model.parameters()]
        return not flags or bool(torch.stack(flags).all())

    def _begin_cooldown(self, reason: str, num_steps: int) -> bool:
        """Let the learning rate fall to its end over ``num_steps`` updates, if the schedule can."""
        state = self.state
        open_ended = [s for s in state.scheduler.schedulers if getattr(s, "can_begin_decay", False)]
        if not open_ended:
            return False
        self.save("stable")
        num_steps = max(num_steps, 1)
        for scheduler in open_ended:
            scheduler.begin_decay(num_steps)
        state.decay_end, state.decay_reason = state.step + num_steps, reason
        return True

    def _time_since_evaluation(self) -> float:
        before, self._evaluated_s = self._evaluated_s, time.monotonic()
        return self._evaluated_s - before


def _switch(optimizers: Iterable[object], mode: str) -> None:
    for optimizer in optimizers:
        if (switch := method_of(optimizer, mode)) is not None:
            switch()

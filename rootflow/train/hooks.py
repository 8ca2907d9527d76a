"""What can watch a training: objects, the model among them, with methods of these names.

    on_run_start                 before the first update            the session
    on_epoch_start               before the first batch of an epoch the session
    on_batch_start               before each update                 the batch
    on_after_backward            gradients are there, not applied   the session
    on_batch_end                 after each update                  a StepReport
    on_pre_performance_check     before an evaluation               the session
    on_post_performance_check    after it                           an EvaluationReport
    on_epoch_end                 after the epoch and its evaluation the session
    on_adjustment                a setting was changed in mid-run   an Adjustment
    on_pre_checkpoint            before a checkpoint is written     the session
    on_checkpoint                after a checkpoint was written     its path
    on_run_end                   the training has ended             the session
    on_exception                 an exception ends it               the exception

A method takes what stands at the right, or nothing. One that raises ends the training. An object with
`state_dict` and `load_state_dict` is saved in checkpoints, under its class's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rootflow.errors import ConfigError
from rootflow.train.methods import method_of, taking

Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """One evaluation on the validation data."""

    step: int
    epoch: int
    metrics: Mapping[str, float]
    """E.g. `{"train/loss": 0.3, "val/loss": 0.4, "val/accuracy": 0.9}`."""
    monitor: str
    """The metric that decides which evaluation is the best."""
    is_best: bool
    elapsed_s: float
    """Time since the evaluation before, this one included."""
    weights: str = "model"
    """Which were evaluated: `model`, or `ema` for their average."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A setting that a training changed by itself, to go on."""

    step: int
    """The update at which it was found that this had to be."""
    key: str
    """Of the config, e.g. `optimizer.lr`."""
    old: float
    new: float
    reason: str
    """What happened, and what was done, as a line after `step 812: `."""


@dataclass(frozen=True)
class Events:
    """For each event, whom to call; looked up once, so that an event nobody watches costs nothing."""

    run_start: tuple[Call, ...]
    epoch_start: tuple[Call, ...]
    batch_start: tuple[Call, ...]
    after_backward: tuple[Call, ...]
    batch_end: tuple[Call, ...]
    pre_performance_check: tuple[Call, ...]
    post_performance_check: tuple[Call, ...]
    epoch_end: tuple[Call, ...]
    adjustment: tuple[Call, ...]
    pre_checkpoint: tuple[Call, ...]
    checkpoint: tuple[Call, ...]
    run_end: tuple[Call, ...]
    exception: tuple[Call, ...]

    @classmethod
    def of(cls, model: object, hooks: Iterable[object] = ()) -> Events:
        """Look up the methods of a model, and after them those of hooks.

        Raises:
            ConfigError: a hook has no method that would ever be called.
        """
        names = [field.name for field in fields(cls)]
        watchers = [model, *hooks]
        for hook in watchers[1:]:
            if not any(method_of(hook, f"on_{name}") for name in names):
                raise ConfigError(
                    f"the hook {type(hook).__name__} has no method that is called; there are "
                    f"{', '.join(f'on_{name}' for name in names)}."
                )
        return cls(**{name: _calls(watchers, f"on_{name}") for name in names})


def _calls(watchers: Iterable[object], name: str) -> tuple[Call, ...]:
    found = (method_of(watcher, name) for watcher in watchers)
    return tuple(taking(method, 1) for method in found if method is not None)

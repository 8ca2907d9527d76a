"""Any scheduler for any optimizer: torch's classes, ours, and a user's class, function or object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter
from typing import Any, TypeAlias, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, PolynomialLR, ReduceLROnPlateau

from rootflow.config.schema import is_auto_key
from rootflow.durations import count_steps
from rootflow.errors import ConfigError
from rootflow.hints import hints_of, members_of, parameters_of
from rootflow.optim.about import AboutScheduler
from rootflow.optim.choices import Chosen, read_choice, title
from rootflow.optim.intervals import interval_of
from rootflow.optim.scheduler_steps import check_interval
from rootflow.optim.schedules import WarmupDecay, scheduler_facts
from rootflow.optim.warmup import Warmup

SchedulerChoice: TypeAlias = LRScheduler | Callable[..., LRScheduler] | Mapping[str, Any] | str
"""A scheduler; a class or function (or `functools.partial` of it) that takes the optimizer; the name of an
option or a component ("cosine", "StepLR"); or a config's node, `{"name": "StepLR", "step_size": 10}`."""

_FILLED_OVER_TORCH: dict[Any, str] = {
    OneCycleLR: "total_steps",
    PolynomialLR: "total_iters",
    ReduceLROnPlateau: "mode",
}
"""Parameters with a default in torch that is an error there, or a guess at the metric."""


def make_scheduler(
    scheduler: SchedulerChoice | None,
    optimizer: Optimizer,
    *,
    num_steps: int | None,
    steps_per_epoch: int | None,
    higher_is_better: bool | None = None,
) -> LRScheduler | None:
    """Return the scheduler that is meant, for this optimizer; None for None.

    What it requires and a training knows, such as `total_steps`, `T_max` or `max_lr`, is filled.

    Args:
        scheduler: see `SchedulerChoice`.
        optimizer: the one that is trained with.
        num_steps: updates in the whole training; None where nobody knows.
        steps_per_epoch: updates in a whole epoch; None where nobody knows.
        higher_is_better: of the monitored value; None where there is none.

    Raises:
        ConfigError: it is for another optimizer, needs a length that nobody knows, or refuses what it is
            given.
    """
    if scheduler is None:
        return None
    if not isinstance(scheduler, type) and hasattr(scheduler, "step"):
        return _bound(cast("LRScheduler", scheduler), optimizer)
    chosen = read_choice("scheduler", cast("Any", scheduler))
    about: AboutScheduler = chosen.about or AboutScheduler()
    facts = scheduler_facts(
        chosen.component,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        lr=float(optimizer.param_groups[0]["lr"]),
        higher_is_better=higher_is_better,
        interval=about.interval,
    )
    built = chosen.called(optimizer, _filled(chosen, {key: value for key, (value, _) in facts.items()}))
    return dress_scheduler(built, about, num_steps=num_steps, steps_per_epoch=steps_per_epoch)


def dress_scheduler(
    scheduler: LRScheduler, about: AboutScheduler, *, num_steps: int | None, steps_per_epoch: int | None
) -> LRScheduler:
    """Return a scheduler that counts what it is told to, and warms up if it is told to.

    Args:
        scheduler: just built.
        about: the keys of its node that are about it.
        num_steps: updates in the whole training; None where nobody knows.
        steps_per_epoch: updates in a whole epoch; None where nobody knows.

    Raises:
        ConfigError: it can't count that, the warm-up is a share of a length that nobody knows, or the
            component returned no scheduler.
    """
    if not callable(getattr(scheduler, "step", None)):
        raise ConfigError(f"scheduler is a {type(scheduler).__name__} object, which has no method `step`.")
    if about.interval != "auto":
        if isinstance(scheduler, WarmupDecay) and about.interval != "step":
            raise ConfigError(
                f"scheduler.interval is {about.interval!r}, but warmup_decay counts updates: leave it out. "
                "Its durations can be given in epochs."
            )
        check_interval(scheduler, about.interval)
        scheduler.interval = about.interval  # type: ignore[attr-defined]  # what `interval_of` looks at
    interval_of(scheduler)
    if about.warmup is None:
        return scheduler
    rise = count_steps(
        about.warmup, key="scheduler.warmup", steps_per_epoch=steps_per_epoch, total_steps=num_steps
    )
    return Warmup(scheduler, rise) if rise else scheduler


def _bound(scheduler: LRScheduler, optimizer: Optimizer) -> LRScheduler:
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ConfigError(
            f"the {type(scheduler).__name__} is for another optimizer than the one that is trained with. "
            "Make it with that, or give its class or functools.partial of it."
        )
    return scheduler


def _filled(chosen: Chosen, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training tells of the parameters that are required and left out, or `auto`.

    Raises:
        ConfigError: a training doesn't tell it, and null isn't allowed.
    """
    hints = hints_of(chosen.component)
    filled: dict[str, Any] = {}
    for parameter in _wanted(chosen):
        name, is_required = parameter.name, parameter.default is Parameter.empty
        if name in known:
            filled[name] = known[name]
        elif is_required and type(None) in members_of(hints.get(name)):
            filled[name] = None
        elif name == "mode":
            filled[name] = "min"  # nothing is monitored but a loss
        else:
            raise ConfigError(
                f"scheduler.{name} of {title(chosen.component)} is a length of the training, which is not "
                "known. Choose scheduler=default, or give trainer.max_epochs or trainer.max_steps."
            )
    return filled


def _wanted(chosen: Chosen) -> Iterator[Parameter]:
    for parameter in parameters_of(chosen.component)[1:]:
        name, value = parameter.name, chosen.settings.get(parameter.name, parameter.default)
        is_over_torch = _FILLED_OVER_TORCH.get(chosen.component) == name and name not in chosen.settings
        if is_over_torch and "epochs" in chosen.settings:  # OneCycleLR's other way to say its length
            continue
        is_left = value is Parameter.empty or (isinstance(value, str) and value == "auto")
        if is_auto_key("scheduler", name) and (is_left or is_over_torch):
            yield parameter

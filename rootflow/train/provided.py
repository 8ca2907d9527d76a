"""What a model brings along itself: its data and its optimizers, by the names that PyTorch users know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from rootflow.errors import ConfigError
from rootflow.optim.build_optimizer import make_optimizer
from rootflow.optim.build_scheduler import make_scheduler
from rootflow.train.length import Limits

LOADER_NAMES = {
    "train": ("train_dataloader", "tng_dataloader"),
    "val": ("val_dataloader",),
    "test": ("test_dataloader",),
}
"""Methods or properties of a model that return a split's data."""


def own_loader_names(model: nn.Module, split: str) -> list[str]:
    """Return what of a model would bring the data of a split; mostly nothing."""
    return [name for name in LOADER_NAMES[split] if hasattr(type(model), name) or name in vars(model)]


def find_loader(model: nn.Module, given: Any, split: str) -> Any:
    """Return the data of a split: what was given, or what the model has; None if nobody has any.

    Raises:
        ConfigError: both are there, or there is nothing to train on.
    """
    names = own_loader_names(model, split)
    if not names:
        if given is None and split == "train":
            raise ConfigError("there is nothing to train on: give data, or a model with train_dataloader().")
        return given
    if given is not None:
        raise ConfigError(
            f"{type(model).__name__} has {names[0]}, and {split} data was given too; leave one of them away."
        )
    own = object.__getattribute__(model, names[0])  # `getattr` would hide an AttributeError inside a property
    return own() if callable(own) and not hasattr(own, "__iter__") else own


def find_optimizers(
    model: nn.Module, optimizer: Any, scheduler: Any, *, limits: Limits, higher_is_better: bool
) -> tuple[tuple[Optimizer, ...], list[Any]]:
    """Return optimizers and schedulers: those given, or what the model's `configure_optimizers` returns.

    It may return one optimizer, several (a list, or a dict by names), a pair of optimizers and schedulers
    (lists or single ones), or a dict with `optimizer` and `lr_scheduler`; a scheduler may be a dict with
    `scheduler` and `interval`.

    Raises:
        ConfigError: both are there, or none.
    """
    own = getattr(model, "configure_optimizers", None)
    if callable(own):
        if optimizer is not None:
            raise ConfigError(
                f"{type(model).__name__} has configure_optimizers, and an optimizer was given too; leave one "
                "of them away."
            )
        optimizers, schedulers = _configured(own())
    elif optimizer is None:
        raise ConfigError("there is no optimizer: give one, or a model with configure_optimizers().")
    else:
        optimizers, schedulers = [make_optimizer(optimizer, model)], []
    if scheduler is not None:
        if schedulers:
            raise ConfigError(
                "configure_optimizers returns schedulers, and one was given too; leave one away."
            )
        schedulers = [
            make_scheduler(
                scheduler,
                optimizers[0],
                num_steps=limits.num_steps,
                steps_per_epoch=limits.steps_per_epoch,
                higher_is_better=higher_is_better,
            )
        ]
    return tuple(optimizers), schedulers


def _configured(returned: Any) -> tuple[list[Optimizer], list[Any]]:
    """Return what `configure_optimizers` returned, as two lists."""
    if isinstance(returned, Optimizer):
        return [returned], []
    if isinstance(returned, Mapping) and all(isinstance(item, Optimizer) for item in returned.values()):
        returned = list(returned.values())
    if isinstance(returned, Mapping) and "optimizer" in returned:
        found = returned.get("lr_scheduler")
        return _as_list(returned["optimizer"]), [] if found is None else [_scheduler_of(found)]
    if isinstance(returned, tuple | list) and returned:
        if all(isinstance(item, Optimizer) for item in returned):
            return list(returned), []
        if all(isinstance(item, Mapping) and "optimizer" in item for item in returned):
            pairs = [_configured(item) for item in returned]
            return [o for found, _ in pairs for o in found], [s for _, found in pairs for s in found]
        if len(returned) == 2:
            return _as_list(returned[0]), [_scheduler_of(item) for item in _as_list(returned[1])]
    raise ConfigError(
        f"configure_optimizers returned {type(returned).__name__}; it may return an optimizer, several, a "
        "pair (optimizers, schedulers), or a dict with 'optimizer' and 'lr_scheduler'."
    )


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _scheduler_of(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    odd = ", ".join(sorted(value.keys() - {"scheduler", "interval", "name"}))
    if odd or "scheduler" not in value:
        raise ConfigError(
            f"configure_optimizers returned a scheduler's dict with {odd or 'no scheduler'}; it may have "
            "scheduler, interval (step, epoch or evaluation) and name. What is monitored is trainer.monitor."
        )
    if "interval" in value:
        value["scheduler"].interval = value["interval"]
    return value["scheduler"]

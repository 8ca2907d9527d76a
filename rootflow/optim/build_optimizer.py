"""Any optimizer over any model: torch's classes, and a user's class, function or object.

The optimizer is called as its authors meant it, `optimizer(parameters, **settings)`. Two things are
done on the way, where the class takes part in them: weight decay spares biases, norms and
embeddings, and the fused kernels are used where the device has them. Afterwards the parts of the model
that are to have settings of their own get them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from rootflow.config.schema import is_auto_key
from rootflow.errors import ConfigError
from rootflow.optim.about import AboutOptimizer
from rootflow.optim.choices import read_choice, title
from rootflow.optim.parameter_groups import Group, parameter_groups, split_groups

OptimizerChoice: TypeAlias = Optimizer | Callable[..., Optimizer] | Mapping[str, Any] | str
"""An optimizer; a class or function (or `functools.partial` of it) that takes parameters, or the model if it
says `model`; the name of an option or a component ("sgd", "AdamW"); or a config's node."""

_FUSED_DEVICES = ("cuda", "cpu")
"""Devices for which torch has fused kernels of every optimizer that takes `fused`."""


def make_optimizer(optimizer: OptimizerChoice, model: nn.Module) -> Optimizer:
    """Return the optimizer that is meant, for this model.

    One that is built is returned as it is; it may hold some of the parameters only, and others besides. Any
    other is built as `build_optimizer` does, with its own defaults: a learning rate `auto` is the class's.

    Args:
        optimizer: see `OptimizerChoice`.
        model: on the device where it will train.

    Raises:
        ConfigError: it holds no parameter of the model, or can't be built; says why.
    """
    if isinstance(optimizer, Optimizer):
        own = {id(parameter) for parameter in model.parameters()}
        if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise ConfigError(
                f"the {type(optimizer).__name__} holds no parameter of this model, and would train nothing. "
                "Make it with model.parameters(), or give its class or functools.partial of it."
            )
        return optimizer
    chosen = read_choice("optimizer", optimizer)
    left = {k for k, v in chosen.settings.items() if is_auto_key("optimizer", k) and v == "auto"}
    settings = {key: value for key, value in chosen.keywords({}).items() if key not in left}
    groups = chosen.about.groups if chosen.about is not None else {}
    return build_optimizer(chosen.component, model, settings, groups)


def groups_of(optimizer: OptimizerChoice) -> Mapping[str, Group]:
    """Return the groups that a name or a node says, for `Freezing`; none of what can't say any.

    Raises:
        ConfigError: as `make_optimizer`.
    """
    if not isinstance(optimizer, str | Mapping):
        return {}
    about: AboutOptimizer = read_choice("optimizer", optimizer).about
    return about.groups


def build_optimizer(
    optimizer: Callable[..., Optimizer],
    model: nn.Module,
    settings: Mapping[str, Any],
    groups: Mapping[str, Group] | None = None,
) -> Optimizer:
    """Return an optimizer over the trainable parameters of a model.

    Args:
        optimizer: a class or function. It is called with the parameters first, grouped for weight
            decay if it has any; one whose first parameter is named `model` gets the model itself.
        model: on the device where it will train.
        settings: keyword arguments; `fused` None or left out means wherever it is supported.
        groups: settings of parts of the model, by patterns of names, see `match_groups`. What is frozen in
            some epochs only is in the optimizer; `Freezing` is the hook that freezes it.

    Raises:
        ConfigError: the optimizer refuses the parameters or a setting, or a pattern matches no parameter;
            says which one and why.
    """
    taken = inspect.signature(optimizer).parameters
    keywords = dict(settings)
    if "fused" in taken and keywords.get("fused") is None and _can_fuse(model, settings):
        keywords["fused"] = True
    first: Any = model if next(iter(taken), None) == "model" else _parameters(model, taken, settings)
    try:
        built = optimizer(first, **keywords)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"optimizer can't be built: {title(optimizer)}: {error}{_hint(optimizer)}"
        ) from error
    if not hasattr(built, "param_groups"):
        raise ConfigError(
            f"optimizer can't be built: {title(optimizer)} returned {built!r}; it must return a "
            "torch.optim.Optimizer."
        )
    if groups:
        split_groups(built, model, groups)
    return built


def _parameters(
    model: nn.Module, taken: Mapping[str, inspect.Parameter], settings: Mapping[str, Any]
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """Return groups if the optimizer decays weights, else one plain list: LBFGS takes no groups."""
    default = taken["weight_decay"].default if "weight_decay" in taken else None
    weight_decay = settings.get("weight_decay", default)
    if isinstance(weight_decay, int | float) and weight_decay != 0:
        return parameter_groups(model, weight_decay=weight_decay)
    return [p for p in model.parameters() if p.requires_grad]


def _can_fuse(model: nn.Module, settings: Mapping[str, Any]) -> bool:
    """Whether torch's fused kernels take these parameters, their gradients and these settings."""
    if settings.get("foreach") or settings.get("differentiable"):
        return False
    if any(isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse for m in model.modules()):
        return False
    trainable = [p for p in model.parameters() if p.requires_grad]
    return all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for p in trainable)


def _hint(optimizer: Callable[..., Optimizer]) -> str:
    if optimizer is torch.optim.Muon:
        return ". optimizer=muon takes any model: it leaves other parameters to AdamW."
    return ""

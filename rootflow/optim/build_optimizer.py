"""Any optimizer over any model: torch's classes, and a user's class or function.

The optimizer is called as its authors meant it, `optimizer(parameters, **settings)`. Two things are
done on the way, where the class takes part in them: weight decay spares biases, norms and
embeddings, and the fused kernels are used where the device has them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from rootflow.errors import ConfigError
from rootflow.optim.parameter_groups import parameter_groups

_FUSED_DEVICES = ("cuda", "cpu")
"""Devices for which torch has fused kernels of every optimizer that takes `fused`."""


def build_optimizer(
    optimizer: Callable[..., Optimizer], model: nn.Module, settings: Mapping[str, Any]
) -> Optimizer:
    """Return an optimizer over the trainable parameters of a model.

    Args:
        optimizer: a class or function. It is called with the parameters first, grouped for weight
            decay if it has any; one whose first parameter is named `model` gets the model itself.
        model: on the device where it will train.
        settings: keyword arguments; `fused` None or left out means wherever it is supported.

    Raises:
        ConfigError: the optimizer refuses the parameters or a setting; says which one and why.
    """
    taken = inspect.signature(optimizer).parameters
    keywords = dict(settings)
    if "fused" in taken and keywords.get("fused") is None and _can_fuse(model, settings):
        keywords["fused"] = True
    first: Any = model if next(iter(taken), None) == "model" else _parameters(model, taken, settings)
    try:
        return optimizer(first, **keywords)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"optimizer can't be built: {_title(optimizer)}: {error}{_hint(optimizer)}"
        ) from error


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


def _title(optimizer: Callable[..., Optimizer]) -> str:
    return f"{optimizer.__module__}.{getattr(optimizer, '__qualname__', optimizer)}"

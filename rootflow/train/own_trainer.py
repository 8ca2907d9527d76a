"""A trainer of the user's own: any object with `fit` or `train`, called with what it asks for by name.

    class MyTrainer:
        def __init__(self, lr: float = 0.1): ...
        def train(self, model, train_loader, val_loader, log): ...

Everything around the training stays rootflow's: data, devices, the run folder, W&B, sweeps.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from rootflow.errors import ConfigError
from rootflow.train.evaluation import as_metrics
from rootflow.train.methods import method_of
from rootflow.train.trainer import FitResult

_CONTEXT = ("context", "ctx")
"""Names of a parameter that gets everything there is, as attributes."""


def fit_by(trainer: object, offered: Mapping[str, Any]) -> FitResult:
    """Train by a trainer's own `fit`, else `train`.

    What it returns becomes the run's metrics: a dict of numbers, or nothing.

    Args:
        trainer: any object.
        offered: what there is, by the names of parameters.

    Raises:
        ConfigError: it has neither method, or asks for something that there isn't.
    """
    method = method_of(trainer, "fit") or method_of(trainer, "train")
    if method is None:
        raise ConfigError(
            f"trainer.name is {type(trainer).__name__}, which has neither fit() nor train(); it needs one "
            "of them."
        )
    everything = {**offered, **dict.fromkeys(_CONTEXT, SimpleNamespace(**offered))}
    keywords = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in everything:
            keywords[name] = everything[name]
        elif parameter.default is parameter.empty:
            raise ConfigError(
                f"{type(trainer).__name__}.{method.__name__} asks for {name!r}; there are "
                f"{', '.join(sorted(offered))}, and all of them as attributes of context."
            )
    returned = method(**keywords)
    metrics = as_metrics(returned, "val/loss") if isinstance(returned, Mapping) and returned else {}
    step, epoch = int(metrics.pop("step", 0)), int(metrics.pop("epoch", 0))
    best = {**metrics, "step": step, "epoch": epoch} if metrics else {}
    return FitResult(step, epoch, "the trainer's own end", metrics, best)

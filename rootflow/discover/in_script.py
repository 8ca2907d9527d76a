"""Trials of a training in somebody's own script, which has its pieces and no config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rootflow.data.loaders import Loader, as_loader
from rootflow.discover.trials import Trials
from rootflow.errors import ConfigError
from rootflow.optim.build_optimizer import OptimizerChoice
from rootflow.tasks import LossTask, Task
from rootflow.train.provided import find_loader, find_optimizers
from rootflow.train.trainer import Trainer

_BATCH_SIZE = 32
"""Of data that isn't in batches yet, where nobody says it."""


def trials_in_script(  # those of `Trainer.fit`, in their order
    model: nn.Module,
    train: Any,
    loss: Callable[..., Tensor] | str | None,
    optimizer: OptimizerChoice | None,
    *,
    task: Task | None,
    trainer: Trainer | None,
) -> tuple[Trials, Loader]:
    """Return trials of a training, not yet entered, and the loader of its data; the model stays where it is.

    Args:
        model: as `Trainer.fit` takes it, and what follows, too.
        train: data.
        loss: or a task.
        optimizer: of the model's parameters; None for a model that configures its own.
        task: or a loss.
        trainer: tells how an update is made; None: plain float32, as in a loop written by hand.

    Raises:
        ConfigError: what is given contradicts itself.
    """
    if loss is not None and task is not None:
        raise ConfigError("there are both a loss and a task; give one: a task is a loss with measures.")
    about = Trainer(precision="fp32", channels_last=False) if trainer is None else trainer
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    batch_size = _BATCH_SIZE if about.batch_size == "auto" else about.batch_size
    loader = as_loader(
        find_loader(model, train, "train"), batch_size=batch_size, device=device, is_train=True
    )
    optimizers, _ = find_optimizers(
        model, optimizer, None, limits=about.limits(loader), higher_is_better=False
    )
    trials = Trials(
        model,
        LossTask(loss) if loss is not None else task,
        optimizers,
        arithmetic=dataclasses.replace(about, device=str(device)).arithmetic(model),
        grad_clip_norm=about.grad_clip_norm,
        micro_batch_size=None if about.micro_batch_size == "auto" else about.micro_batch_size,
        with_ema=about.ema_decay not in (None, "auto"),
    )
    return trials, loader

"""`trainer.num_threads: auto`: how many cores a training on the CPU should use.

A small update costs less than what threads pay to share it, and on a busy machine they wait for one another
besides: the default experiment took 4 s by one thread and 180 s by two while other work ran. The rule counts
operations rather than time, so that the same experiment gets the same threads, and with them the same bits.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from rootflow.data.loaders import count_usable_cores
from rootflow.discover.found import Found
from rootflow.train.evaluation import evaluating
from rootflow.train.objective import Objective
from rootflow.train.seeding import keep_generators

_WORTH_SHARING = 1e8
"""Operations of an update from which threads pay: some 2 ms of one core."""


def find_num_threads(objective: Objective, batch: Any) -> Found:
    """Return one thread for small updates, else one a core, at most OMP_NUM_THREADS.

    Args:
        objective: of a model on the CPU, which is left as it is.
        batch: one of the training.
    """
    available = int(os.environ.get("OMP_NUM_THREADS") or 0) or count_usable_cores()
    if available == 1:
        return Found(1, "one core is usable")
    operations = 3 * count_operations(objective, batch)  # the backward pass takes twice the forward pass
    if operations < _WORTH_SHARING:
        return Found(1, f"{operations:.1e} operations an update are too few to share")
    return Found(available, f"{operations:.1e} operations an update, {available} cores")


def count_operations(objective: Objective, batch: Any) -> float:
    """Return the floating-point operations of a forward pass in layers whose weights are matrices.

    Each weight takes part in a multiplication and an addition for every position of the output.
    Model, buffers and random generators are as before.
    """
    total = 0.0

    def count(layer: nn.Module, _inputs: Any, outputs: Any) -> None:
        nonlocal total
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim >= 2 and isinstance(outputs, Tensor):
            total += 2 * outputs.numel() * weight[0].numel()

    model = objective.model
    hooks = [module.register_forward_hook(count) for module in model.modules()]
    try:
        with torch.no_grad(), keep_generators(), evaluating(model):
            objective.forward(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return total

"""`optimizer.lr: auto`, by the rule for the optimizer's family and the batch size.

SGD: 0.1 at 128 samples, in proportion to the batch (Goyal et al. 2017, arXiv 1706.02677), at most 1.
Adam's family: 3e-3 at 64 samples, with the square root of the batch (Malladi et al. 2022,
arXiv 2205.10287), within bounds that small networks stand. Any other class keeps its own default.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from rootflow.discover.found import Found
from rootflow.errors import ConfigError

_ADAM_FAMILY = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "muon")
"""Optimizers whose learning rate is in Adam's units; our Muon matches the size of Adam's updates."""


def find_lr(optimizer: Callable[..., Any], batch_size: int) -> Found:
    """Return a learning rate for an optimizer class.

    Raises:
        ConfigError: there is no rule for the class, and its signature has no default.
    """
    name = getattr(optimizer, "__name__", str(optimizer))
    if name == "SGD":
        return Found(min(0.1 * batch_size / 128, 1.0), f"rule for SGD: 0.1 * {batch_size} / 128, at most 1")
    if name in _ADAM_FAMILY:
        lr = min(max(3e-3 * math.sqrt(batch_size / 64), 3e-3), 8e-3)
        return Found(lr, f"rule for {name}: 0.003 * sqrt({batch_size} / 64), from 0.003 to 0.008")
    parameter = inspect.signature(optimizer).parameters.get("lr")
    if parameter is None or not isinstance(parameter.default, int | float):
        raise ConfigError(
            f"optimizer.lr is 'auto', and there is no rule for {name}; give optimizer.lr a number."
        )
    return Found(float(parameter.default), f"the default of {name}")

"""rootflow: a config-driven experiment runner for plain PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootflow.config.classes import config_class
    from rootflow.config.typed import Experiment
    from rootflow.discover.batch_size import find_batch_size
    from rootflow.discover.learning_rate import find_lr
    from rootflow.experiment import run
    from rootflow.registry import register
    from rootflow.resuming import resume

__all__ = ["Experiment", "config_class", "find_batch_size", "find_lr", "register", "resume", "run"]
__version__ = "0.1.0"

_HOMES = {
    "Experiment": "rootflow.config.typed",
    "config_class": "rootflow.config.classes",
    "find_batch_size": "rootflow.discover.batch_size",
    "find_lr": "rootflow.discover.learning_rate",
    "register": "rootflow.registry",
    "resume": "rootflow.resuming",
    "run": "rootflow.experiment",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `rootflow --help` needs none of them."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rootflow' has no attribute {name!r}")

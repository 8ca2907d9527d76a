"""From YAML files and overrides to one checked `Config`; torch is never imported here.

The typed, nested and dotted-flat forms of a config, and what turns one into another, are exported here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootflow.config.canonical import identity
    from rootflow.config.classes import config_class
    from rootflow.config.flat import from_flat, to_flat
    from rootflow.config.typed import Experiment, from_dict, to_dict

__all__ = ["Experiment", "config_class", "from_dict", "from_flat", "identity", "to_dict", "to_flat"]

_HOMES = {
    **dict.fromkeys(("Experiment", "from_dict", "to_dict"), "typed"),
    **dict.fromkeys(("from_flat", "to_flat"), "flat"),
    "config_class": "classes",
    "identity": "canonical",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"rootflow.config.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rootflow.config' has no attribute {name!r}")

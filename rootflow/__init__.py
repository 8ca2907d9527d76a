"""rootflow: a config-driven experiment runner for plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootflow.registry import register

__all__ = ["register"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `register` when it is first asked for, so that `rootflow --help` needn't."""
    if name == "register":
        from rootflow.registry import register

        return register
    raise AttributeError(f"module 'rootflow' has no attribute {name!r}")

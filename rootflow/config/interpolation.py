"""A composed config as plain values, every `${...}` in it resolved."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rootflow.config.schema import MISSING


def resolve(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the plain values, and by dotted key why one of them is not among them."""
    unresolved: dict[str, str] = {}
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except (OmegaConfBaseException, RecursionError):
        plain = _one_by_one(cfg, "", unresolved)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}, unresolved


def _one_by_one(node: Any, prefix: str, unresolved: dict[str, str]) -> Any:
    if not OmegaConf.is_config(node):
        return node
    found: dict[Any, Any] = {}
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        try:
            value = MISSING if OmegaConf.is_missing(node, key) else node[key]
            found[key] = _one_by_one(value, f"{prefix}{key}.", unresolved)
        except (OmegaConfBaseException, RecursionError) as error:
            unresolved[f"{prefix}{key}"] = _reason(error)
    return list(found.values()) if isinstance(node, ListConfig) else found


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError) or "Recursive" in str(error):
        return "it refers to itself"
    first = str(error).splitlines()[0].rstrip(".")
    return first.rpartition("while resolving interpolation: ")[2].strip('"')

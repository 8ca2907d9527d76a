"""Config to objects: the one place where a name or a `_target_` becomes a call.

`build` calls the component of a node with the node's keys as keyword arguments. Lists become
tuples and mappings become dataclasses where the signature says so; a nested mapping that has `name` or
`_target_` is built first. Nothing of the config is changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rootflow.errors import ConfigError, RootflowError
from rootflow.registry import find_component, import_object, place_of

_OWN_KEYS = ("name", "_target_", "_partial_")


def load(group: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    """Import and return the class or function that a node names.

    Raises:
        ConfigError: it isn't registered, or can't be imported.
    """
    if "_target_" in node:
        return import_object(str(node["_target_"]), f"{group}._target_")
    return find_component(group, str(node["name"])).load()


def arguments(group: str, node: Mapping[str, Any], *positional: Any) -> dict[str, Any]:
    """Return the keyword arguments that a node gives its component, in the types it declares.

    Args:
        group: the registry's group, for nested names.
        node: the config of the component.
        positional: what a nested component of the same group is called with first.
    """
    hints = _hints(load(group, node))
    given = {key: value for key, value in node.items() if key not in _OWN_KEYS}
    return {
        key: _typed(
            value if _is_mapping(hints.get(key)) else _nested(group, value, positional), hints.get(key)
        )
        for key, value in given.items()
    }


def build(group: str, node: Mapping[str, Any], *positional: Any) -> Any:
    """Build the object that a node describes.

    Args:
        group: e.g. `model`.
        node: `name` or `_target_`, and arguments.
        positional: what the run passes first, e.g. the optimizer to a scheduler.

    Raises:
        ConfigError: the component refuses the arguments; says which component and why.
    """
    component = load(group, node)
    keywords = arguments(group, node, *positional)
    if node.get("_partial_"):
        return functools.partial(component, **keywords)
    try:
        return component(*positional, **keywords)
    except RootflowError:
        raise
    except (TypeError, ValueError) as error:
        title = f"{getattr(component, '__module__', '')}.{getattr(component, '__qualname__', component)}"
        place = place_of(error) if error.__traceback__ and error.__traceback__.tb_next else ""
        raise ConfigError(f"{group} can't be built: {title}: {error}{place}") from error


def _nested(group: str, value: Any, positional: tuple[Any, ...]) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        target = import_object(str(value["_target_"]), f"{group}._target_")
        keywords = arguments(group, value)
        return functools.partial(target, **keywords) if value.get("_partial_") else target(**keywords)
    if isinstance(value, Mapping) and "name" in value:
        return build(group, value, *positional)
    if isinstance(value, list):
        return [_nested(group, item, positional) for item in value]
    return value


def _hints(component: Callable[..., Any]) -> dict[str, Any]:
    """Return the declared types, as far as they can be evaluated."""
    target: Any = component
    if isinstance(component, type) and not dataclasses.is_dataclass(component):
        target = component.__init__  # type: ignore[misc]
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError, AttributeError):
        return _resolvable_hints(target)


def _resolvable_hints(target: Any) -> dict[str, Any]:
    """Resolve each annotation by itself: one that names what only type checkers import costs no other."""
    names = vars(sys.modules.get(getattr(target, "__module__", ""), typing))
    hints: dict[str, Any] = {}
    for key, annotation in getattr(target, "__annotations__", {}).items():
        with contextlib.suppress(Exception):
            holder = type("Holder", (), {"__annotations__": {key: annotation}})
            hints |= typing.get_type_hints(holder, globalns=names)
    return hints


def _typed(value: Any, hint: Any) -> Any:
    """Give a plain value the container type that the hint asks for."""
    members = typing.get_args(hint) if _is_union(hint) else (hint,)
    for member in members:
        if isinstance(value, list) and typing.get_origin(member) is tuple:
            return tuple(value)
        if isinstance(value, str) and member is Path and str not in members:
            return Path(value)
        if isinstance(value, dict) and dataclasses.is_dataclass(member) and isinstance(member, type):
            inner = _hints(member)
            return member(**{key: _typed(item, inner.get(key)) for key, item in value.items()})
    return value


def _is_mapping(hint: Any) -> bool:
    """Whether a parameter wants a mapping as such: then a `name` in it names no component."""
    return (typing.get_origin(hint) or hint) in (dict, Mapping)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)

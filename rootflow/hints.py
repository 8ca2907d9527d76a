"""What a Python class or function declares about its arguments, as far as it can be evaluated.

Where `signatures` reads the source, this asks the object, once it is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any


def parameters_of(component: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the named parameters, also those that `**kwargs` hands on to a base class."""
    found: dict[str, inspect.Parameter] = {}
    for taker in _takers(component):
        for name, parameter in _signature(taker).items():
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(name, parameter)
    return list(found.values())


def _takers(component: Any) -> list[Any]:
    """Return what takes a component's arguments: its `__init__`, and those it hands `**kwargs` on to."""
    if not isinstance(component, type) or dataclasses.is_dataclass(component):
        return [component]
    found = []
    for cls in component.__mro__:
        if "__init__" in vars(cls) and cls is not object:
            found.append(cls if dataclasses.is_dataclass(cls) else vars(cls)["__init__"])
            if all(p.kind is not p.VAR_KEYWORD for p in _signature(found[-1]).values()):
                break
    return found or [component]


def _signature(taker: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters but `self`; none where Python can't tell, as for classes written in C."""
    try:
        taken = dict(inspect.signature(taker).parameters)
    except (TypeError, ValueError):
        return {}
    return {name: p for name, p in taken.items() if name != "self"}


def hints_of(component: Any) -> dict[str, Any]:
    """Return the declared types, as far as they can be evaluated."""
    hints: dict[str, Any] = {}
    for taker in reversed(_takers(component)):
        try:
            hints |= typing.get_type_hints(taker)
        except (NameError, TypeError, AttributeError):
            hints |= _resolvable_hints(taker)
    return hints


def _resolvable_hints(target: Any) -> dict[str, Any]:
    """Resolve each annotation by itself: one that names what only type checkers import costs no other."""
    names = vars(sys.modules.get(getattr(target, "__module__", ""), typing))
    hints: dict[str, Any] = {}
    for key, annotation in getattr(target, "__annotations__", {}).items():
        with contextlib.suppress(Exception):
            holder = type("Holder", (), {"__annotations__": {key: annotation}})
            hints |= typing.get_type_hints(holder, globalns=names)
    return hints


def members_of(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def hints_of_items(hint: Any, num_items: int) -> list[Any] | None:
    """Return a hint for each item; None for a tuple of another length."""
    hints = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and hints[-1:] != (Ellipsis,):
        return list(hints) if len(hints) == num_items else None
    return list(hints[:1] or (None,)) * num_items

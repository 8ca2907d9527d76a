"""How a user's function wants to be called: told by its signature, once, before it is called often."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_MANY = 1_000


def count_positional(function: Callable[..., Any]) -> tuple[int, int]:
    """Return how many positional arguments a function needs, and how many it takes at most.

    A function that doesn't show its signature, as some written in C, counts as one of exactly one.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1, 1
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    needed = sum(p.default is p.empty for p in positional)
    takes_more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return needed, _MANY if takes_more else len(positional)


def keyword_names(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """Return the names that a function takes as keywords, and whether it takes any other too."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set(), True
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in parameters if p.kind in kinds}, any(p.kind is p.VAR_KEYWORD for p in parameters)


def taking(function: Callable[..., Any], num_arguments: int) -> Callable[..., Any]:
    """Return a function of ``num_arguments`` that hands on as many of them as the given one takes."""
    most = count_positional(function)[1]
    if most >= num_arguments:
        return function
    return lambda *arguments: function(*arguments[:most])


def shown(function: Callable[..., Any], name: str) -> str:
    """Return a name with its signature, for a message: `Net.forward(x, mask=None)`."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return f"{name}(...)"
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return f"{name}{signature.replace(parameters=plain, return_annotation=signature.empty)}"


def method_of(thing: object, name: str) -> Callable[..., Any] | None:
    """Return a method that an object may have; None without it."""
    found = getattr(thing, name, None)
    return found if callable(found) else None

"""Does a value fit an annotation? Decided on the annotation's syntax tree, without importing it.

Covers what YAML can express: int, float, str, bool, None, Path, Literal, unions, Optional, lists,
tuples, mappings, and ranges by Annotated. A name it doesn't know (Tensor, nn.Module) can only be
given as a nested component, a mapping with `name` or `_target_`.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

_PLAIN = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "None": "null",
    "Path": "a path",
}
_SEQUENCES = ("list", "tuple", "Sequence", "Iterable", "set", "frozenset", "List", "Tuple")
_MAPPINGS = ("dict", "Mapping", "Dict", "MutableMapping")


class DoesNotFitError(ValueError):
    """The value is not what the annotation allows; the message says what is."""


def fit(value: Any, annotation: ast.expr | None) -> Any:
    """Return ``value``, with numbers and containers in the annotation's own type.

    Whole floats become ints where an int is wanted, ints become floats where a float is.

    Raises:
        DoesNotFitError: says what is allowed.
    """
    if annotation is None:
        return value
    try:
        return _fit(value, annotation)
    except _NoFitError:
        raise DoesNotFitError(describe(annotation)) from None


def describe(annotation: ast.expr) -> str:
    """Return what an annotation allows, in words."""
    node = _unquoted(annotation)
    name = _name(node)
    if isinstance(node, ast.BinOp) or name in ("Union", "Optional"):
        return " or ".join(dict.fromkeys(map(describe, _members(node))))
    if not isinstance(node, ast.Subscript):
        return _PLAIN.get(name, f"a {ast.unparse(node)}")
    arguments = _arguments(node)
    if name == "Literal":
        return " or ".join(repr(_constant(a)) if _constant(a) is not None else "null" for a in arguments)
    if name == "Annotated":
        return " ".join(
            [describe(arguments[0]), *(word for mark in arguments[1:] for word in _range_words(mark))]
        )
    if name in _SEQUENCES:
        inner = [describe(a) for a in arguments if not _is_ellipsis(a)]
        return f"a list of {inner[0]}" if len(inner) == 1 else f"a list of {', '.join(inner)}"
    return "a mapping" if name in _MAPPINGS else f"a {ast.unparse(node)}"


class _NoFitError(Exception):
    pass


def _fit(value: Any, annotation: ast.expr) -> Any:
    node = _unquoted(annotation)
    name = _name(node)
    if isinstance(node, ast.BinOp) or name in ("Union", "Optional"):
        return _fit_union(value, _members(node))
    if not isinstance(node, ast.Subscript):
        return _fit_plain(value, name)
    arguments = _arguments(node)
    if name == "Literal":
        return _fit_literal(value, [_constant(a) for a in arguments])
    if name == "Annotated":
        return _fit_range(_fit(value, arguments[0]), arguments[1:])
    if name in _SEQUENCES:
        return _fit_sequence(value, arguments, fixed=name in ("tuple", "Tuple"))
    if name in _MAPPINGS:
        return _fit_mapping(value, arguments)
    return _fit_plain(value, name)


def _fit_union(value: Any, members: list[ast.expr]) -> Any:
    fitted = []
    for member in members:
        try:
            fitted.append(_fit(value, member))
        except _NoFitError:
            continue
    exact = [f for f in fitted if type(f) is type(value)]
    if not fitted:
        raise _NoFitError
    return exact[0] if exact else fitted[0]


def _fit_plain(value: Any, name: str) -> Any:
    if name in ("int", "float") and isinstance(value, str):
        value = _number_in(value)  # ${oc.env:...} gives text, whatever it holds
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in ("Any", "object"):
        return value
    if name == "int" and is_number and float(value).is_integer():
        return int(value)
    if name == "float" and is_number:
        return float(value)
    if name in ("str", "Path") and (isinstance(value, str) or is_number):
        return str(value)
    if name == "bool" and isinstance(value, bool):
        return value
    if name == "None" and value is None:
        return None
    if name in _SEQUENCES and isinstance(value, list | tuple):
        return list(value)
    if name in _MAPPINGS and isinstance(value, Mapping):
        return dict(value)
    if name not in _PLAIN and isinstance(value, Mapping | list):
        return value
    raise _NoFitError


def _number_in(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        with contextlib.suppress(ValueError):
            return float(text)
    return text


def _fit_literal(value: Any, choices: list[Any]) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    raise _NoFitError


def _fit_range(value: Any, marks: Iterable[ast.expr]) -> Any:
    for mark in marks:
        for word, limit in _limits(mark):
            if value is not None and not _COMPARE[word](value, limit):
                raise _NoFitError
    return value


def _fit_sequence(value: Any, arguments: list[ast.expr], *, fixed: bool) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _NoFitError
    if not fixed or (len(arguments) == 2 and _is_ellipsis(arguments[1])):
        return [_fit(item, arguments[0]) for item in value]
    if len(value) != len(arguments):
        raise _NoFitError
    return [_fit(item, argument) for item, argument in zip(value, arguments, strict=True)]


def _fit_mapping(value: Any, arguments: list[ast.expr]) -> dict[Any, Any]:
    if not isinstance(value, Mapping) or len(arguments) != 2:
        raise _NoFitError
    return {_fit(k, arguments[0]): _fit(v, arguments[1]) for k, v in value.items()}


_COMPARE = {
    "above": lambda value, limit: value > limit,
    "at least": lambda value, limit: value >= limit,
    "below": lambda value, limit: value < limit,
    "at most": lambda value, limit: value <= limit,
}
_MARKS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _limits(mark: ast.expr) -> list[tuple[str, float]]:
    """Read `Ge(1)` and `Interval(ge=0, le=1)` of the annotated-types package."""
    if not isinstance(mark, ast.Call):
        return []
    given = [(_name(mark.func).lower(), a) for a in mark.args] + [
        (k.arg or "", k.value) for k in mark.keywords
    ]
    return [(_MARKS[key], _constant(limit)) for key, limit in given if key in _MARKS]


def _range_words(mark: ast.expr) -> list[str]:
    words = [f"{word} {limit}" for word, limit in _limits(mark)]
    return [" and ".join(words)] if words else []


def _members(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp):
        return _members(_unquoted(node.left)) + _members(_unquoted(node.right))
    if isinstance(node, ast.Subscript) and _name(node) in ("Union", "Optional"):
        inner = [m for a in _arguments(node) for m in _members(_unquoted(a))]
        return [*inner, ast.Constant(None)] if _name(node) == "Optional" else inner
    return [node]


def _unquoted(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    return node


def _arguments(node: ast.Subscript) -> list[ast.expr]:
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _constant(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant):
        return "None" if node.value is None else type(node.value).__name__
    return node.id if isinstance(node, ast.Name) else ""

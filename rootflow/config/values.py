"""Does a value fit an annotation? Decided on the annotation's syntax tree, without importing it.

Covers what YAML can express: int, float, str, bool, None, Path, Literal, unions, Optional, lists,
tuples, mappings, and by Annotated ranges and units: `10 epochs`, `5 min`, `30%`, and durations. A name it
doesn't know (Tensor, nn.Module) can only be given as a nested component, a mapping with `name` or
`_target_`.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from rootflow.durations import describe_durations, read_span
from rootflow.limits import Unit, as_number, read_quantity

_PLAIN = {
    "int": ("a whole number", "whole numbers"),
    "float": ("a number", "numbers"),
    "str": ("text", "texts"),
    "bool": ("true or false", "true or false"),
    "None": ("null", "null"),
    "Path": ("a path", "paths"),
    "Any": ("anything", "anything"),
    "object": ("anything", "anything"),
}
_SEQUENCES = ("list", "tuple", "Sequence", "Iterable", "set", "frozenset", "List", "Tuple")
_MAPPINGS = ("dict", "Mapping", "Dict", "MutableMapping")
_NOT_FINITE = ("inf", "-inf", "nan")


class DoesNotFitError(ValueError):
    """The value is not what the annotation allows; the message says what is."""


def fit(value: Any, annotation: ast.expr | None) -> Any:
    """Return ``value``, with numbers and containers in the annotation's own type.

    Whole floats become ints where an int is wanted, ints become floats where a float is. Text becomes the
    number that it says, in the unit of the annotation: 300.0 for `5 min` where seconds are wanted.
    Durations become their one spelling.

    Raises:
        DoesNotFitError: says what is allowed.
    """
    if annotation is None:
        return value
    try:
        return _fit(value, annotation, _Marks())
    except _NoFitError:
        raise DoesNotFitError(describe(annotation)) from None


def describe(annotation: ast.expr) -> str:
    """Return what an annotation allows, in words."""
    return _words(annotation, _Marks(), num=1)


def takes_null(annotation: ast.expr | None) -> bool:
    """Whether null is one of the values that an annotation allows."""
    try:
        return fit(None, annotation) is None
    except DoesNotFitError:
        return False


class _NoFitError(Exception):
    pass


@dataclass(frozen=True)
class _Marks:
    """What Annotated says beside the type, of the numbers in it."""

    limits: tuple[tuple[str, float], ...] = ()
    """E.g. `("ge", 1)`."""
    units: tuple[Unit, ...] = ()

    def and_those_of(self, nodes: Iterable[ast.expr]) -> _Marks:
        """Read `Ge(1)` and `Interval(ge=0, le=1)` of the annotated-types package, and `Unit("epochs")`."""
        limits, units = list(self.limits), list(self.units)
        for call in (node for node in nodes if isinstance(node, ast.Call)):
            name = _name(call.func)
            given = [(name.lower(), a) for a in call.args] + [(k.arg or "", k.value) for k in call.keywords]
            values = [(key, _constant(value)) for key, value in given]
            limits += [(key, limit) for key, limit in values if key in _COMPARE and _is_number(limit)]
            units += [Unit(unit) for _, unit in values if name == "Unit" and isinstance(unit, str)]
        return _Marks(tuple(limits), tuple(units))

    def allow(self, number: float) -> bool:
        """Whether a number is in the range; what counts something is finite."""
        is_endless = isinstance(number, float) and not math.isfinite(number)
        within = all(_COMPARE[key][0](number, limit) for key, limit in self.limits)
        return within and not (self.units and is_endless)

    @property
    def is_share(self) -> bool:
        """Whether the range is from 0 to 1, which can be said in percent, too."""
        return sorted(self.limits) == [("ge", 0), ("le", 1)]

    def words(self) -> list[str]:
        """Return the range and what else can be written, e.g. `at least 1` and `(epochs)`."""
        limits = dict(self.limits)
        if limits.keys() == {"ge", "le"}:
            ranges = [f"from {limits['ge']} to {limits['le']}"]
        else:
            ranges = [" and ".join(f"{_COMPARE[key][1]} {limit}" for key, limit in self.limits)]
        hint = ["(or 0% to 100%)"] if self.is_share else [_unit_words(unit) for unit in self.units]
        return [word for word in (*ranges, *hint) if word]


_COMPARE = {
    "gt": (operator.gt, "above"),
    "ge": (operator.ge, "at least"),
    "lt": (operator.lt, "below"),
    "le": (operator.le, "at most"),
}


def _unit_words(unit: Unit) -> str:
    return f"({unit.long_name}, or a time like '5 min')" if unit.is_time else f"({unit.long_name})"


def _fit(value: Any, annotation: ast.expr, marks: _Marks) -> Any:
    node = _unquoted(annotation)
    name, arguments = _name(node), _arguments(node)
    if _is_union(node):
        return _fit_union(value, _members(node), marks)
    if name == "Annotated" and arguments:
        return _fit(value, arguments[0], marks.and_those_of(arguments[1:]))
    if name == "Literal" and _choices(arguments):
        return _fit_literal(value, _choices(arguments))
    if name in ("int", "float"):
        return _fit_number(value, name, marks)
    if name == "str" and marks.units:
        return _fit_duration(value, marks.units)
    if name in _SEQUENCES and arguments:
        return _fit_sequence(value, arguments, fixed=name in ("tuple", "Tuple"))
    if name in _MAPPINGS and len(arguments) == 2:
        return _fit_mapping(value, arguments)
    return _fit_plain(value, name)


def _fit_union(value: Any, members: list[ast.expr], marks: _Marks) -> Any:
    fitted = []
    for member in members:
        try:
            fitted.append(_fit(value, member, marks))
        except _NoFitError:
            continue
    exact = [f for f in fitted if type(f) is type(value)]
    if not fitted:
        raise _NoFitError
    return exact[0] if exact else fitted[0]


def _fit_number(value: Any, name: str, marks: _Marks) -> int | float:
    number = _number_in(value, marks) if isinstance(value, str) else value
    if not _is_number(number) or (name == "int" and not _is_whole(number)):
        raise _NoFitError
    try:
        fitted = int(number) if name == "int" else float(number)
    except OverflowError:  # more than a float holds
        raise _NoFitError from None
    if not marks.allow(fitted):
        raise _NoFitError
    return fitted


def _number_in(text: str, marks: _Marks) -> int | float | None:
    """Return the number that a text says: YAML takes `1e-3` for text, and ${oc.env:...} gives text."""
    if text in _NOT_FINITE:
        return float(text)
    quantity = read_quantity(text)
    if quantity is None:
        return None
    number, word = quantity
    if not word:
        return as_number(number)
    if word == "%" and marks.is_share:
        return as_number(number / 100)
    rates = (unit.per(word) for unit in marks.units)
    return next((as_number(number * rate) for rate in rates if rate is not None), None)


def _fit_duration(value: Any, units: tuple[Unit, ...]) -> str:
    try:
        return str(read_span(value, units))
    except ValueError:
        raise _NoFitError from None


def _fit_plain(value: Any, name: str) -> Any:
    if name in ("Any", "object"):
        return value
    if name in ("str", "Path"):
        return _fit_text(value)
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


def _fit_text(value: Any) -> str:
    if not isinstance(value, str) and not _is_number(value):
        raise _NoFitError
    try:
        return str(value)
    except ValueError:  # Python spells no number of thousands of digits
        raise _NoFitError from None


def _fit_literal(value: Any, choices: list[Any]) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    raise _NoFitError


def _fit_sequence(value: Any, arguments: list[ast.expr], *, fixed: bool) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _NoFitError
    if not _is_fixed(arguments, fixed=fixed):
        return [_fit(item, arguments[0], _Marks()) for item in value]
    if len(value) != len(arguments):
        raise _NoFitError
    return [_fit(item, argument, _Marks()) for item, argument in zip(value, arguments, strict=True)]


def _fit_mapping(value: Any, arguments: list[ast.expr]) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _NoFitError
    return {_fit(k, arguments[0], _Marks()): _fit(v, arguments[1], _Marks()) for k, v in value.items()}


def _words(annotation: ast.expr, marks: _Marks, *, num: int) -> str:
    """Return what is allowed; ``num`` above 1 asks for the plural."""
    node = _unquoted(annotation)
    name, arguments = _name(node), _arguments(node)
    if _is_union(node):
        return " or ".join(dict.fromkeys(_words(member, marks, num=num) for member in _members(node)))
    if name == "Annotated" and arguments:
        return _words(arguments[0], marks.and_those_of(arguments[1:]), num=num)
    if name == "Literal" and _choices(arguments):
        return " or ".join("null" if c is None else repr(c) for c in _choices(arguments))
    if name == "str" and marks.units:
        return describe_durations(marks.units).replace("a duration", ("a duration", "durations")[num > 1])
    if name in _PLAIN:
        return " ".join([_PLAIN[name][num > 1], *(marks.words() if name in ("int", "float") else ())])
    if name in _SEQUENCES:
        items = _item_words(arguments, fixed=name in ("tuple", "Tuple"))
        return ("a list" if num == 1 else "lists") + (f" of {items}" if items else "")
    if name in _MAPPINGS:
        return "a mapping" if num == 1 else "mappings"
    return _component_words(node, num=num)


def _item_words(arguments: list[ast.expr], *, fixed: bool) -> str:
    if not arguments:
        return ""
    if not _is_fixed(arguments, fixed=fixed):
        return _words(arguments[0], _Marks(), num=2)
    each = [_words(argument, _Marks(), num=1) for argument in arguments]
    if len(set(each)) > 1:
        return f"{', '.join(each[:-1])} and {each[-1]}"
    return f"{len(each)} {_words(arguments[0], _Marks(), num=2)}" if len(each) > 1 else each[0]


def _component_words(node: ast.expr, *, num: int) -> str:
    """Name a type that only Python can make, and how a config gives it."""
    title = ast.unparse(node.value if isinstance(node, ast.Subscript) else node)
    if num > 1:
        return f"{title}s as {{_target_: ...}}"
    return f"{'an' if title[:1] in 'AEIOaeio' else 'a'} {title} as {{_target_: ...}}"


def _is_fixed(arguments: list[ast.expr], *, fixed: bool) -> bool:
    """Whether each item of a sequence has a type of its own."""
    return fixed and not (len(arguments) == 2 and _is_ellipsis(arguments[1]))


def _is_union(node: ast.expr) -> bool:
    return isinstance(node, ast.BinOp) or (
        isinstance(node, ast.Subscript) and _name(node) in ("Union", "Optional")
    )


def _members(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp):
        return _members(_unquoted(node.left)) + _members(_unquoted(node.right))
    if isinstance(node, ast.Subscript) and _name(node) in ("Union", "Optional"):
        inner = [m for a in _arguments(node) for m in _members(_unquoted(a))]
        return [*inner, ast.Constant(None)] if _name(node) == "Optional" else inner
    return [node]


def _unquoted(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return ast.parse(node.value.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            return ast.Name(node.value)  # a type that nobody knows
    return node


def _arguments(node: ast.expr) -> list[ast.expr]:
    if not isinstance(node, ast.Subscript):
        return []
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _choices(arguments: list[ast.expr]) -> list[Any]:
    """Return the values of a Literal that the source shows."""
    return [found for found in map(_constant, arguments) if found is not _UNKNOWN]


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


_UNKNOWN = object()


def _constant(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _UNKNOWN


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(number: float) -> bool:
    return isinstance(number, int) or number.is_integer()


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant):
        return "None" if node.value is None else type(node.value).__name__
    return node.id if isinstance(node, ast.Name) else ""

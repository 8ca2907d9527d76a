"""Which values fit which annotations: one table."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from rootflow.config.values import DoesNotFitError, describe, fit


def annotation(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


@pytest.mark.parametrize(
    ("text", "value", "fitted"),
    [
        ("int", 3, 3),
        ("int", 1e4, 10000),
        ("float", 3, 3.0),
        ("float | None", None, None),
        ("Optional[int]", None, None),
        ("str", 7, "7"),
        ("bool", True, True),
        ("Path", "a/b", "a/b"),
        ("int | Literal['auto']", "auto", "auto"),
        ("Literal['relu', 'gelu']", "gelu", "gelu"),
        ("Annotated[int, Ge(1)]", 1, 1),
        ("Annotated[float, Interval(ge=0, le=1)]", 1, 1.0),
        ("tuple[int, ...]", [1, 2.0], [1, 2]),
        ("tuple[float, float]", [0.9, 1], [0.9, 1.0]),
        ("list[str]", ["a"], ["a"]),
        ("dict[str, int]", {"a": 1}, {"a": 1}),
        ("'int | None'", None, None),
        ("int | float", 3, 3),
        ("int | float", 3.5, 3.5),
        ("float | Tensor", 0.1, 0.1),
        ("Tensor", {"name": "x"}, {"name": "x"}),
        ("Any", "whatever", "whatever"),
    ],
)
def test_a_value_that_fits_comes_back_in_the_annotations_type(text: str, value: Any, fitted: Any) -> None:
    result = fit(value, annotation(text))
    assert result == fitted
    assert type(result) is type(fitted)


@pytest.mark.parametrize(
    ("text", "value", "allowed"),
    [
        ("int", "abc", "a whole number"),
        ("int", 1.5, "a whole number"),
        ("int", True, "a whole number"),
        ("float", "1e-3x", "a number"),
        ("float | Tensor", "abc", "a number or a Tensor"),
        ("bool", 1, "true or false"),
        ("str", None, "text"),
        ("str", [1], "text"),
        ("Literal['relu', 'gelu']", "tanh", "'relu' or 'gelu'"),
        ("Literal[1]", True, "1"),
        ("Annotated[int, Ge(1)] | Literal['auto']", -3, "a whole number at least 1 or 'auto'"),
        ("Annotated[float, Interval(ge=0, le=1)]", 1.1, "a number at least 0 and at most 1"),
        ("Annotated[float, Gt(0)]", 0.0, "a number above 0"),
        ("Annotated[float, Gt(0)]", float("nan"), "a number above 0"),
        ("tuple[float, float]", [0.9], "a list of a number, a number"),
        ("tuple[int, ...]", [1, "x"], "a list of a whole number"),
        ("list[int]", 3, "a list of a whole number"),
        ("dict[str, int]", [1], "a mapping"),
        ("int | None", "x", "a whole number or null"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_what_is_allowed(
    text: str, value: Any, allowed: str
) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        fit(value, annotation(text))
    assert str(caught.value) == allowed


def test_a_parameter_without_annotation_takes_anything() -> None:
    assert fit([1], None) == [1]


def test_the_words_for_an_unknown_type_are_its_name() -> None:
    assert describe(annotation("nn.Module")) == "a nn.Module"

"""Which values fit which annotations: one table."""

from __future__ import annotations

import ast
import contextlib
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootflow.config.values import DoesNotFitError, describe, fit, takes_null


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
        ("float", "1e-3", 0.001),
        ("float", "1e300", 1e300),
        ("float", "inf", math.inf),
        ("float", "33.3", 33.3),
        ("int", "1e3", 1000),
        ("int", "1_000", 1000),
        ("int", " 7 ", 7),
        ("int", "100000000000000000000001", 100000000000000000000001),
        ("int | str", "7", "7"),
        ("list", (1, "a"), [1, "a"]),
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
        ("float | Tensor", "abc", "a number or a Tensor as {_target_: ...}"),
        ("bool", 1, "true or false"),
        ("str", None, "text"),
        ("str", [1], "text"),
        ("Literal['relu', 'gelu']", "tanh", "'relu' or 'gelu'"),
        ("Literal[1]", True, "1"),
        ("Annotated[int, Ge(1)] | Literal['auto']", -3, "a whole number at least 1 or 'auto'"),
        ("Annotated[float, Interval(ge=0, le=1)]", 1.1, "a number from 0 to 1 (or 0% to 100%)"),
        ("Annotated[float, Gt(0)]", 0.0, "a number above 0"),
        ("Annotated[float, Gt(0)]", float("nan"), "a number above 0"),
        ("tuple[float, float]", [0.9], "a list of 2 numbers"),
        ("tuple[int, str]", [1], "a list of a whole number and text"),
        ("tuple[int, ...]", [1, "x"], "a list of whole numbers"),
        ("list[int]", 3, "a list of whole numbers"),
        ("list[Annotated[int, Ge(1)]]", [0], "a list of whole numbers at least 1"),
        ("list[list[str]]", 3, "a list of lists of texts"),
        ("list[LRScheduler]", 3, "a list of LRSchedulers as {_target_: ...}"),
        ("list", 3, "a list"),
        ("dict[str, int]", [1], "a mapping"),
        ("int | None", "x", "a whole number or null"),
        ("Annotated[int | None, Ge(1)]", 0, "a whole number at least 1 or null"),
        ("Annotated[float, Gt(0), Le(2)]", 3, "a number above 0 and at most 2"),
        ("int", "٣", "a whole number"),
        ("int", "1__0", "a whole number"),
        pytest.param("int", "9" * 5000, "a whole number", id="many digits"),
        ("int", math.inf, "a whole number"),
        ("int", "10 epochs", "a whole number"),
        pytest.param("float", 10**400, "a number", id="more than a float holds"),
        ("float", "1e400", "a number"),
        pytest.param("str", 10**5000, "text", id="more digits than Python spells"),
        ("Optional[Literal[Color.RED]]", "RED", "a Literal as {_target_: ...} or null"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_what_is_allowed(
    text: str, value: Any, allowed: str
) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        fit(value, annotation(text))
    assert str(caught.value) == allowed


EPOCHS = "Annotated[int, Ge(1), Unit('epochs')]"
SECONDS = "Annotated[float, Gt(0), Unit('s')]"
FRACTION = "Annotated[float, Interval(ge=0, le=1)]"
DURATION = "Annotated[str, Unit('steps'), Unit('epochs'), Unit('%')]"


@pytest.mark.parametrize(
    ("text", "value", "fitted"),
    [
        (EPOCHS, "10 epochs", 10),
        (EPOCHS, "10epochs", 10),
        (EPOCHS, "1 epoch", 1),
        (EPOCHS, "1e3 epochs", 1000),
        (EPOCHS, 10.0, 10),
        (f"{EPOCHS} | Literal['auto'] | None", "10 epochs", 10),
        (f"{EPOCHS} | Literal['auto'] | None", "auto", "auto"),
        ("Annotated[int | None, Ge(1), Unit('epochs')]", "10 epochs", 10),
        (SECONDS, 90, 90.0),
        (SECONDS, "90", 90.0),
        (SECONDS, "90 s", 90.0),
        (SECONDS, "5 min", 300.0),
        (SECONDS, "1.5 h", 5400.0),
        (SECONDS, "1 hour", 3600.0),
        (SECONDS, "2 d", 172800.0),
        (SECONDS, "250 ms", 0.25),
        ("Annotated[int, Unit('min')]", "2 h", 120),
        ("Annotated[float, Unit('GiB')]", "4 GiB", 4.0),
        (FRACTION, "30%", 0.3),
        (FRACTION, "33.3 %", 0.333),
        (FRACTION, "100%", 1.0),
        (DURATION, "5%", "5%"),
        (DURATION, "2.50 %", "2.5%"),
        (DURATION, 500, "500 steps"),
        (DURATION, "500", "500 steps"),
        (DURATION, "1 steps", "1 step"),
        (DURATION, "1e3 steps", "1000 steps"),
        (DURATION, "2epochs", "2 epochs"),
        (DURATION, "1 epoch", "1 epoch"),
        (DURATION, "0.5 epochs", "0.5 epochs"),
    ],
)
def test_text_with_a_unit_is_taken_in_the_unit_of_the_key(text: str, value: Any, fitted: Any) -> None:
    result = fit(value, annotation(text))
    assert result == fitted
    assert type(result) is type(fitted)


TIME = "a number above 0 (seconds, or a time like '5 min')"
SPANS = "a duration like '500 steps', '2 epochs' or '5%'"


@pytest.mark.parametrize(
    ("text", "value", "allowed"),
    [
        (EPOCHS, "10 steps", "a whole number at least 1 (epochs)"),
        (EPOCHS, "5 min", "a whole number at least 1 (epochs)"),
        (EPOCHS, "1.5 epochs", "a whole number at least 1 (epochs)"),
        (EPOCHS, "0 epochs", "a whole number at least 1 (epochs)"),
        (f"{EPOCHS} | Literal['auto']", "epochs", "a whole number at least 1 (epochs) or 'auto'"),
        (SECONDS, "5 epochs", TIME),
        (SECONDS, "5m", TIME),
        (SECONDS, "-5 s", TIME),
        (SECONDS, math.inf, TIME),
        (f"list[{SECONDS}]", ["x"], "a list of numbers above 0 (seconds, or a time like '5 min')"),
        (FRACTION, "130%", "a number from 0 to 1 (or 0% to 100%)"),
        ("Annotated[float, Ge(0)]", "30%", "a number at least 0"),
        (DURATION, 0.05, SPANS),
        (DURATION, 1.0, SPANS),
        (DURATION, "1.0", SPANS),
        (DURATION, "5 min", SPANS),
        (DURATION, "1.5 steps", SPANS),
        (DURATION, "-1 epochs", SPANS),
        (DURATION, "101%", SPANS),
        (DURATION, "auto", SPANS),
        (DURATION, True, SPANS),
        (f"list[{DURATION}]", 3, "a list of durations like '500 steps', '2 epochs' or '5%'"),
        ("Annotated[str, Unit('epochs'), Unit('s')]", "3 steps", "a duration like '2 epochs' or '90 s'"),
    ],
)
def test_a_wrong_unit_is_refused_with_the_right_one(text: str, value: Any, allowed: str) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        fit(value, annotation(text))
    assert str(caught.value) == allowed


def test_a_parameter_without_annotation_takes_anything() -> None:
    assert fit([1], None) == [1]


def test_an_unknown_type_is_named_with_how_a_config_gives_it() -> None:
    assert describe(annotation("nn.Module")) == "a nn.Module as {_target_: ...}"
    assert describe(annotation("Callable[..., Any]")) == "a Callable as {_target_: ...}"
    assert describe(annotation("Optimizer")) == "an Optimizer as {_target_: ...}"


@pytest.mark.parametrize(
    ("text", "takes"), [("int | None", True), ("Optional[str]", True), ("Any", True), ("str", False)]
)
def test_whether_null_is_allowed_is_told(text: str, takes: bool) -> None:
    assert takes_null(annotation(text)) is takes


PLAIN = "int float str bool None Path Any Tensor nn.Module list tuple dict Union Optional Literal ... -1"
ODD = ["'int'", "'not a type'", "'\\0'", "Literal['a', 1, None, X.Y]", "Annotated[int, Ge('a'), Gt(X)]"]
MARKED = [EPOCHS, SECONDS, FRACTION, DURATION, "Annotated[list[int], Ge(1), Len(2)]"]
NAMES = st.sampled_from([*PLAIN.split(), *ODD, *MARKED])
ANNOTATIONS = st.recursive(
    NAMES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(" | ".join),
        st.tuples(
            st.sampled_from(["list", "tuple", "dict", "set", "Optional", "Union", "Annotated", "Callable"]),
            st.lists(inner, max_size=3).map(", ".join),
        ).map(lambda parts: f"{parts[0]}[{parts[1] or '()'}]"),
    ),
    max_leaves=5,
)
NUMBER_TEXTS = st.from_regex(
    r"[-+]?[0-9٣²_.]{1,6}(e[-+]?[0-9]{1,4})? ?(epochs?|steps|%|min|ms|²)?", fullmatch=True
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | NUMBER_TEXTS
    | st.sampled_from([10**400, -(10**4000), "9" * 5000, "1e999", "auto", "inf", "nan"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(ANNOTATIONS, VALUES)
def test_no_value_and_no_annotation_gives_another_error(text: str, value: Any) -> None:
    node = annotation(text)
    describe(node)
    with contextlib.suppress(DoesNotFitError):
        fit(value, node)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([EPOCHS, SECONDS, FRACTION, DURATION, "int", "float"]), NUMBER_TEXTS)
def test_what_was_fitted_fits_as_it_is(text: str, value: str) -> None:
    try:
        fitted = fit(value, annotation(text))
    except DoesNotFitError:
        return
    assert fit(fitted, annotation(text)) == fitted


def test_a_list_deeper_than_pythons_stack_is_refused_or_taken_as_it_is() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(DoesNotFitError, match="a list of whole numbers"):
        fit(deep, annotation("list[int]"))
    assert fit(deep, annotation("Any")) is deep

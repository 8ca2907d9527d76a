"""Dotted keys and back, for every nested mapping; clashes and bad escapes are named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootflow.config.flat import from_flat, to_flat
from rootflow.errors import ConfigError

KEYS = st.text(alphabet="ab.\\\n é", max_size=4)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
LISTS = st.lists(SCALARS | st.dictionaries(KEYS, SCALARS, max_size=2), max_size=3)
NUMBERED = st.dictionaries(st.integers(), SCALARS, min_size=1, max_size=2)
VALUES = st.recursive(SCALARS | LISTS | NUMBERED, lambda inner: st.dictionaries(KEYS, inner, max_size=3))


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(max_examples=500, derandomize=True, deadline=None, database=None)
def test_every_nested_mapping_comes_back_from_its_flat_form(nested: dict[str, Any]) -> None:
    assert from_flat(to_flat(nested)) == nested


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        ({}, {}),
        ({"a": {"b": {"c": 1}}, "d": None}, {"a.b.c": 1, "d": None}),
        ({"a": {}, "b": {"c": {}}}, {"a": {}, "b.c": {}}),
        ({"a": [{"b": 1}, {}], "c": []}, {"a": [{"b": 1}, {}], "c": []}),
        ({"a.b": {"c": 1}, "a": {"b.c": 2}}, {"a\\.b.c": 1, "a.b\\.c": 2}),
        ({"a\\": {".": 1}}, {"a\\\\.\\.": 1}),
        ({"": {"": 1}}, {".": 1}),
        ({"weights": {0: 1.0, 1: 2.0}}, {"weights": {0: 1.0, 1: 2.0}}),
        ({"weights": {"0": 1.0}}, {"weights.0": 1.0}),
    ],
)
def test_what_is_a_key_and_what_is_a_value(nested: dict[str, Any], flat: dict[str, Any]) -> None:
    assert to_flat(nested) == flat
    assert from_flat(flat) == nested


@pytest.mark.parametrize(
    ("flat", "told"),
    [
        ({"a": 1, "a.b": 2}, "'a' and 'a.b' can't both be there: 'a' is 1, so there is nothing in it."),
        ({"a.b.c": 2, "a": {}}, "'a' and 'a.b.c' can't both be there: 'a' is {}, so there is nothing in it."),
    ],
)
def test_a_key_within_a_value_is_a_clash_whatever_the_order(flat: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_flat(flat)
    assert str(caught.value) == f"{told} Leave one out."


@pytest.mark.parametrize("key", ["a\\b", "a\\"])
def test_a_backslash_that_escapes_nothing_is_told(key: str) -> None:
    with pytest.raises(ConfigError, match="has a backslash that escapes nothing"):
        from_flat({key: 1})


def test_a_key_of_the_config_itself_must_be_text() -> None:
    numbered: dict[Any, Any] = {0: 1}
    with pytest.raises(ConfigError, match=r"^the key 0 of the config is int; it must be text\.$"):
        to_flat(numbered)

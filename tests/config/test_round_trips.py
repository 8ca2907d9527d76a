"""No form of a config loses anything on its way to another: YAML, nested, flat and typed."""

from __future__ import annotations

import dataclasses
import enum
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rootflow.build import load
from rootflow.config.canonical import identity
from rootflow.config.classes import find_config_class
from rootflow.config.flat import from_flat, to_flat
from rootflow.config.folders import shipped_folder
from rootflow.config.layers import read_layer
from rootflow.config.plain_yaml import to_yaml
from rootflow.config.schema import MISSING, defaults_of, schema_of
from rootflow.config.typed import from_dict, to_dict
from rootflow.registry import GROUPS
from tests.config.conftest import Compose
from tests.config.test_conf import REQUIRED

SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
OPTIONS = [(path.parent.name, path.stem) for path in sorted(shipped_folder("conf").glob("*/*.yaml"))]


class Order(enum.Enum):
    FORWARD = 1
    BACKWARD = 2


@dataclass(frozen=True)
class Kernel:
    size: tuple[int, int] = (3, 3)
    order: Order = Order.FORWARD


@dataclass
class Block:
    kernel: Kernel = Kernel()
    rate: float | Literal["auto"] = "auto"
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Everything:
    """What a config class may hold."""

    blocks: tuple[Block, ...] = ()
    by_name: dict[str, Block] = dataclasses.field(default_factory=dict)
    last: Block | None = None
    weights: dict[int, float] = dataclasses.field(default_factory=dict)
    orders: list[Order] = dataclasses.field(default_factory=list)
    path: Path = Path("data")
    ratio: float = 1 / 3
    other: Any = None


class Net:
    """Takes everything; reached by its import path."""

    def __init__(self, config: Everything) -> None:
        self.config = config


def _values(hint: Any) -> st.SearchStrategy[Any]:
    """Return what a YAML may say where a type is declared."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _fields(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from([*hint.__members__])
    if origin in (tuple, list) and arguments[-1] is not Ellipsis and origin is tuple:
        return st.tuples(*map(_values, arguments)).map(list)
    if origin in (tuple, list):
        return st.lists(_values(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(_values(arguments[0]), _values(arguments[1]), max_size=2)
    if arguments:
        return st.one_of(*map(_values, arguments))
    return _PLAIN.get(hint, st.none() | st.lists(_NESTED, max_size=2) | _NESTED)


_TEXTS = st.text(max_size=6) | st.sampled_from(
    ["1e-05", "1", "null", "true", "~", "0x1f", "1_000", "auto", "${a}"]
)
_NUMBERS = st.floats(allow_nan=False) | st.sampled_from([1e-05, 1e16, -0.0, math.inf])
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: _NUMBERS,
    bool: st.booleans(),
    str: _TEXTS,
    type(None): st.none(),
    Path: st.sampled_from(["other", "./data", "a//b", "/", "", "~/c", "..", "1e-05"]),
}
_NESTED = st.dictionaries(_TEXTS, st.integers() | _TEXTS | st.booleans(), max_size=2)


def _fields(cls: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Return all fields, or those that someone said."""
    hints = typing.get_type_hints(cls)
    return st.fixed_dictionaries({}, optional={name: _values(hint) for name, hint in hints.items()})


def _option(group: str, option: str) -> tuple[dict[str, Any], dict[str, st.SearchStrategy[Any]]]:
    """Return the complete node of a shipped option, and what its keys may be."""
    node = yaml.safe_load((shipped_folder("conf") / group / f"{option}.yaml").read_text(encoding="utf-8"))
    schema = schema_of(group, node)
    if schema is None or node["name"] == "auto":
        return node, {}
    cls = find_config_class(load(group, node), group)
    assert cls is not None
    hints = typing.get_type_hints(cls)
    values = {p.name: _values(hints[p.name]) for p in schema.parameters}
    complete = {key: value for key, value in (defaults_of(schema) | node).items() if value != MISSING}
    needed = [
        f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING
    ]
    return complete | dict.fromkeys(needed, "needed"), values


_SHIPPED = {group: [_option(group, option) for of, option in OPTIONS if of == group] for group in GROUPS}


@st.composite
def complete_configs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
    """Draw an option for each group, and values for some of its keys."""
    chosen = {group: draw(st.sampled_from(options)) for group, options in _SHIPPED.items()}
    config = {group: dict(node) for group, (node, _) in chosen.items()}
    keys = [(group, key) for group, (_, values) in chosen.items() for key in values]
    for group, key in draw(st.lists(st.sampled_from(keys), min_size=4, max_size=12)):
        config[group][key] = draw(chosen[group][1][key])
    if draw(st.booleans()):
        config["model"] = {"_target_": f"{__name__}.Net", **draw(_fields(Everything))}
    return config | {"seed": draw(st.integers(0, 2**63 - 1)), "name": draw(st.none() | _TEXTS)}


@settings(SETTINGS, max_examples=2000)
@given(complete_configs())
def test_yaml_and_the_flat_and_the_typed_form_lose_nothing(nested: dict[str, Any]) -> None:
    layer = read_layer("a.yaml", to_yaml(nested))
    assert _exactly(OmegaConf.to_container(OmegaConf.create(dict(layer.values)), resolve=True)) == _exactly(
        nested
    )
    assert _exactly(from_flat(to_flat(nested))) == _exactly(nested)
    typed = from_dict(nested)
    complete = to_dict(typed)
    assert _exactly(_part(complete, _normal(nested))) == _exactly(_normal(nested))
    assert identity(complete) == identity(nested)
    assert from_dict(complete) == typed
    assert _exactly(to_dict(from_dict(complete))) == _exactly(complete)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=map("=".join, OPTIONS))
def test_every_shipped_option_is_typed_and_comes_back_whole(
    compose: Compose, group: str, option: str
) -> None:
    config = compose(f"{group}={option}", *REQUIRED.get((group, option), [])).to_dict()
    typed = from_dict(config)
    assert to_dict(typed) == _normal(config)
    assert from_dict(to_dict(typed)) == typed
    assert {g for g in GROUPS if not dataclasses.is_dataclass(getattr(typed, g))} <= {"task"}


def _normal(nested: dict[str, Any]) -> dict[str, Any]:
    """Return a complete config without what says nothing: a run without a name, or without weights to start from."""
    return {
        key: value for key, value in nested.items() if value is not None or key not in ("name", "init_from")
    }


def _part(whole: Any, said: Any) -> Any:
    """Return of a config what another says too, in the order there."""
    if isinstance(whole, dict) and isinstance(said, dict):
        return {key: _part(whole[key], value) for key, value in said.items() if key in whole}
    if isinstance(whole, list) and isinstance(said, list):
        return [_part(*pair) for pair in zip(whole, said, strict=True)]
    return whole


def _exactly(value: Any) -> Any:
    """Return a value with its types and signs, which `==` doesn't compare: 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {(type(key), key): _exactly(item) for key, item in value.items()}
    return [type(value), [_exactly(item) for item in value]] if isinstance(value, list) else repr(value)

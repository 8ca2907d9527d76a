"""Nodes of a config become calls, in the types that the component declares."""

from __future__ import annotations

import functools
import math
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from rootflow.build import arguments, build
from rootflow.errors import ConfigError
from rootflow.models.mlp import MLP
from rootflow.tracking.settings import TrackingSettings, WandbSettings


@dataclass
class Inner:
    sizes: tuple[int, ...] = ()


if TYPE_CHECKING:
    from nowhere import Unresolvable


class Partly:
    def __init__(self, odd: Unresolvable, inner: Inner, folder: Path) -> None:
        self.odd, self.inner, self.folder = odd, inner, folder


class Meta:
    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta


class Outer:
    def __init__(self, inner: Inner | None, pair: tuple[float, float] = (0.0, 1.0), more: Any = None) -> None:
        self.inner, self.pair, self.more = inner, pair, more
        if pair == (2, 1):
            raise ValueError("the pair is the wrong way round")


@pytest.fixture(autouse=True)
def _importable() -> Iterator[None]:
    module = types.ModuleType("components_of_this_test")
    for component in (Inner, Outer, Partly, Meta):
        setattr(module, component.__name__, component)
    sys.modules[module.__name__] = module
    yield
    del sys.modules[module.__name__]


TARGET = "components_of_this_test.Outer"


def test_lists_and_mappings_become_the_declared_types() -> None:
    built = build("model", {"_target_": TARGET, "inner": {"sizes": [1, 2]}, "pair": [0.5, 0.6]})
    assert built.inner == Inner((1, 2))
    assert built.pair == (0.5, 0.6)
    assert build("model", {"_target_": TARGET, "inner": None}).inner is None


def test_a_registered_name_is_built_with_its_keys() -> None:
    model = build(
        "model", {"name": "mlp", "in_features": 4, "num_classes": 2, "hidden": [3], "activation": "gelu"}
    )
    assert isinstance(model, MLP)
    assert model(torch.zeros(5, 4)).shape == (5, 2)
    tracking = build(
        "tracking", {"name": "tracking", "root": "r", "wandb": {"tags": ["a"], "mode": "offline"}}
    )
    assert tracking == TrackingSettings(root="r", wandb=WandbSettings(mode="offline", tags=("a",)))


def test_nested_components_are_built_first() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    node = {
        "name": "SequentialLR",
        "schedulers": [{"name": "ConstantLR", "factor": 0.5}, {"name": "ExponentialLR", "gamma": 0.1}],
        "milestones": [3],
    }
    built = build("scheduler", node, optimizer)
    assert [type(s).__name__ for s in built._schedulers] == ["ConstantLR", "ExponentialLR"]
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_function_may_be_an_argument() -> None:
    more = {"_target_": "math.pow", "_partial_": True}
    built = build("model", {"_target_": TARGET, "inner": None, "more": more})
    assert isinstance(built.more, functools.partial)
    assert built.more(2, 3) == math.pow(2, 3)


def test_a_component_that_refuses_its_arguments_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model can't be built: .*Outer: the pair is the wrong way round"):
        build("model", {"_target_": TARGET, "inner": None, "pair": [2, 1]})
    with pytest.raises(ConfigError, match=r"Outer: .*unexpected keyword argument 'wrong'"):
        build("model", {"_target_": TARGET, "inner": None, "wrong": 1})


def test_the_node_is_left_as_it_was() -> None:
    node = {"_target_": TARGET, "inner": {"sizes": [1]}, "pair": [0.0, 1.0]}
    arguments("model", node)
    assert node == {"_target_": TARGET, "inner": {"sizes": [1]}, "pair": [0.0, 1.0]}


def test_an_annotation_that_can_not_be_resolved_costs_the_others_nothing() -> None:
    node = {"_target_": "components_of_this_test.Partly", "odd": 1, "inner": {"sizes": [1]}, "folder": "a"}
    built = build("model", node)
    assert built.inner == Inner((1,))
    assert built.folder / "b" == Path("a/b")


def test_a_mapping_with_a_name_is_a_mapping_where_one_is_asked_for() -> None:
    built = build("model", {"_target_": "components_of_this_test.Meta", "meta": {"name": "foo"}})
    assert built.meta == {"name": "foo"}

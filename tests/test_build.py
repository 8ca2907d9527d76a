"""Nodes of a config become calls, in the types that the component declares."""

from __future__ import annotations

import enum
import functools
import math
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from rootflow.build import arguments, build, take_about, taken_dataclass
from rootflow.errors import ConfigError
from rootflow.models.mlp import MLP
from rootflow.optim.about import AboutOptimizer, AboutScheduler
from rootflow.optim.parameter_groups import Group
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


class Shade(enum.Enum):
    LIGHT = 1
    DARK = "dark"


@dataclass(frozen=True)
class Deep:
    gain: float = 1.0
    shade: Shade = Shade.LIGHT


@dataclass(frozen=True)
class Head:
    dim: int
    deep: Deep = field(default_factory=lambda: Deep(gain=math.tau))


@dataclass(frozen=True)
class NetConfig:
    width: int
    head: Head | None = None
    folder: Path = Path("here")
    pairs: tuple[tuple[int, float], ...] = ()
    heads: dict[str, Head] = field(default_factory=dict)
    inners: list[Inner] = field(default_factory=list)
    kept: Deep = Deep(gain=7.0, shade=Shade.DARK)


@dataclass(frozen=True)
class WiderConfig(NetConfig):
    depth: int = 1


@dataclass
class Named:
    name: str = "a name"


class Net:
    def __init__(self, config: NetConfig) -> None:
        self.config = config


class Handing(Net):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


def optimizer_of(params: Any, cfg: WiderConfig | None = None) -> WiderConfig | None:
    return cfg


def split_or_not(*, split: Deep = Deep()) -> Deep:
    return split


def two(config: NetConfig, more: int) -> None: ...


def named(config: Named) -> Named:
    return config


def plain(config: dict[str, Any]) -> dict[str, Any]:
    return config


COMPONENTS = (Inner, Outer, Partly, Meta, Net, Handing, optimizer_of, split_or_not, two, named, plain)


@pytest.fixture(autouse=True)
def _importable() -> Iterator[None]:
    module = types.ModuleType("components_of_this_test")
    for component in COMPONENTS:
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


def node(component: str, **keys: Any) -> dict[str, Any]:
    return {"_target_": f"components_of_this_test.{component}", **keys}


@pytest.mark.parametrize(
    ("component", "num_given", "taken"),
    [
        (Net, 0, NetConfig),
        (Handing, 0, NetConfig),
        (optimizer_of, 1, WiderConfig),
        (optimizer_of, 0, None),
        (split_or_not, 0, None),
        (two, 0, None),
        (named, 0, None),
        (plain, 0, None),
        (Outer, 0, None),
        (Net, 1, None),
        (torch.optim.AdamW, 1, None),
        (math.sin, 0, None),
    ],
)
def test_one_dataclass_is_taken_where_it_is_all_there_is(
    component: Any, num_given: int, taken: type | None
) -> None:
    assert taken_dataclass(component, num_given) is taken


def test_a_component_that_takes_one_dataclass_gets_it_in_exactly_the_declared_types() -> None:
    given = node(
        "Net",
        width=3,
        head={"dim": 4, "deep": {"shade": "DARK"}},
        folder="there",
        pairs=[[1, 2], [3, 4.5]],
        heads={"a": {"dim": 1}},
        inners=[{"sizes": [1]}],
        kept={"gain": 2.0},
    )
    config = build("model", given).config
    assert type(config) is NetConfig
    assert config == NetConfig(
        width=3,
        head=Head(4, Deep(math.tau, Shade.DARK)),
        folder=Path("there"),
        pairs=((1, 2.0), (3, 4.5)),
        heads={"a": Head(1)},
        inners=[Inner((1,))],
        kept=Deep(2.0, Shade.DARK),
    )
    assert [type(n) for pair in config.pairs for n in pair] == [int, float, int, float]


def test_arguments_that_are_handed_on_to_a_base_class_are_typed_as_there() -> None:
    assert build("model", node("Handing", width=3)).config == NetConfig(3)


def test_what_rootflow_gives_comes_before_the_dataclass() -> None:
    assert build("optimizer", node("optimizer_of", width=1, depth=2), []) == WiderConfig(1, depth=2)
    assert arguments("optimizer", node("optimizer_of", width=1)) == {"cfg": WiderConfig(1)}


def test_a_dataclass_beside_others_or_with_a_name_of_its_own_keeps_its_key() -> None:
    assert build("dataset", node("split_or_not", split={"gain": 3.0})) == Deep(3.0)
    assert build("model", node("named", config={"name": "mine"})) == Named("mine")


def test_the_parameters_own_name_may_be_written_out() -> None:
    assert build("model", node("Net", config={"width": 3})).config == NetConfig(3)


def test_a_dataclass_that_lacks_a_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model can't be built: .*Net: .*missing .*'width'$"):
        build("model", node("Net"))
    with pytest.raises(ConfigError, match=r"Net: .*unexpected keyword argument 'wide'"):
        arguments("model", node("Net", width=1, wide=1))


def items(
    seq: Sequence[Path],
    some: set[int],
    opts: Mapping[str, Shade],
    one: Shade | str,
    either: float | int | tuple[int, int],
) -> tuple[Any, ...]:
    return seq, some, opts, one, either


def test_containers_hold_what_they_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["components_of_this_test"], "items", items, raising=False)
    given = {"seq": ["a"], "some": [1, 1], "opts": {"k": "DARK"}, "one": "dark"}
    built = build("model", node("items", **given, either=[1, 2]))
    assert built == ([Path("a")], {1}, {"k": Shade.DARK}, "dark", (1, 2))
    assert type(build("model", node("items", **given, either=1))[-1]) is int


def own_warmup(optimizer: Any, warmup: int, **more: Any) -> None:
    """A scheduler that takes one of the keys about schedulers itself."""


def test_keys_about_a_component_are_taken_off_its_node_and_typed() -> None:
    about, node = take_about(
        "optimizer", {"name": "SGD", "lr": 0.1, "groups": {"0.*": {"lr_scale": 2, "frozen": True}}}
    )
    assert about == AboutOptimizer(groups={"0.*": Group(lr_scale=2.0, frozen=True)})
    assert type(about.groups["0.*"].lr_scale) is float
    assert node == {"name": "SGD", "lr": 0.1}
    about, node = take_about("scheduler", {"name": "StepLR", "step_size": 3, "interval": "step"})
    assert (about, node) == (AboutScheduler(interval="step"), {"name": "StepLR", "step_size": 3})
    assert take_about("scheduler", node) == (AboutScheduler(), node)


def test_keys_about_a_component_that_it_takes_itself_stay_in_its_node() -> None:
    given = {"_target_": f"{__name__}.own_warmup", "warmup": 3, "interval": "step"}
    about, node = take_about("scheduler", given)
    assert about == AboutScheduler(interval="step")
    assert node == {"_target_": f"{__name__}.own_warmup", "warmup": 3}


def test_what_is_no_value_of_a_key_about_a_component_is_told() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.groups: .*unexpected keyword argument 'lr_scal'"):
        take_about("optimizer", {"name": "SGD", "groups": {"0.*": {"lr_scal": 2}}})

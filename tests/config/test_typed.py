"""Experiments written in Python, their nested form, and the classes that a nested form becomes again."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import importlib
import math
import pickle
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ExponentialLR, LinearLR

import rootflow
from rootflow.config.schema import Config
from rootflow.config.typed import Experiment, config_class, from_dict, to_dict
from rootflow.data.augment import Augment
from rootflow.data.cifar import cifar10
from rootflow.data.loaders import LoaderSettings
from rootflow.data.splits import Split
from rootflow.errors import ConfigError
from rootflow.models.resnet import ResNet
from rootflow.signatures import COMPUTED
from rootflow.tracking.settings import TrackingSettings, WandbSettings
from rootflow.train.trainer import Trainer

HERE = __name__


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True, kw_only=True)
class Settings(LoaderSettings):
    """A loader of one's own, with every type that a config may hold."""

    path: Path = Path("data")
    colour: Colour = Colour.RED
    sizes: tuple[int, ...] = ()
    splits: tuple[Split, ...] = ()
    weights: dict[int, float] = dataclasses.field(default_factory=dict)
    by_name: dict[str, Split] = dataclasses.field(default_factory=dict)
    ratio: float = 0.5


@dataclass(slots=True)
class Slotted:
    """Has no room for what was said."""

    width: int = 3
    depth: int = 2


@dataclass
class Rounded:
    """Keeps something else than it is given."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        self.rate = round(self.rate, 1)


@dataclass(kw_only=True)
class Checked:
    """Needs what rootflow finds out, and something that it doesn't keep."""

    shared: ClassVar[int]
    num_classes: int
    seed: dataclasses.InitVar[int] = 0

    def __post_init__(self, seed: int) -> None:
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}")


@dataclass
class Named:
    name: str = "x"


@dataclass
class Hidden:
    """Its own."""

    width: int = 3
    _x: int = 0


class Plain:
    """A model that isn't registered."""

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 8,
        head: Any = None,
        sizes: list[int] = [1],  # noqa: B006
        name: str = "plain",
    ) -> None: ...


def greedy(width: int = 8, **kwargs: Any) -> nn.Module:
    """Make a model; takes anything."""
    return nn.Identity()


def test_an_experiment_has_the_fields_of_a_config() -> None:
    assert [f.name for f in fields(Experiment)] == [f.name for f in fields(Config)]


def test_a_component_has_one_config_class_however_it_is_asked_for() -> None:
    found = config_class(ResNet)
    assert found is config_class("model", "resnet") is config_class("model", ResNet)
    assert found.__name__ == "ResNetConfig"
    assert config_class(cifar10).__name__ == "Cifar10Config"
    assert found(depth=34) == config_class(ResNet)(depth=34) != found(depth=50)


def test_the_fields_of_a_config_class_are_the_keys_with_their_types_and_defaults() -> None:
    found = config_class(ResNet)
    depth = Literal[18, 20, 32, 34, 44, 50, 56, 110]
    hints = get_type_hints(found)
    assert {f.name: (hints[f.name], f.default) for f in fields(found)} == {
        "in_channels": (int | Literal["auto"], "auto"),
        "num_classes": (int | Literal["auto"], "auto"),
        "depth": (depth, 18),
        "width": (int | None, None),
        "dropout": (float, 0.0),
    }


def test_defaults_of_a_config_class_are_the_real_ones() -> None:
    assert config_class(AdamW)().betas == (0.9, 0.999)
    assert config_class(cifar10)().augment == Augment(flip="alternating", translate=4)


def test_a_default_that_can_change_is_not_shared() -> None:
    config_class("model", Plain)().sizes.append(2)
    assert config_class("model", Plain)().sizes == [1]


def test_a_parameter_called_name_is_no_field() -> None:
    found = config_class("model", Plain)
    assert [f.name for f in fields(found)] == ["num_classes", "width", "head", "sizes"]


def test_what_rootflow_passes_is_no_field() -> None:
    assert "params" not in config_class(SGD).__dataclass_fields__
    assert "optimizer" not in config_class("scheduler", "StepLR").__dataclass_fields__


def test_a_default_that_is_code_is_computed_and_never_said() -> None:
    found = config_class(LinearLR)()
    assert found.start_factor is COMPUTED
    assert to_dict(Experiment(scheduler=found)) == {
        "scheduler": {"name": "LinearLR", "end_factor": 1.0, "total_iters": 5, "last_epoch": -1}
    }


def test_what_must_be_given_must_be_given_in_python_too() -> None:
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'step_size'"):
        config_class("scheduler", "StepLR")()


def test_a_component_that_is_a_dataclass_is_its_own_config_class() -> None:
    assert config_class(Trainer) is config_class("trainer", "trainer") is Trainer


def test_a_component_without_source_has_no_config_class() -> None:
    with pytest.raises(ConfigError, match=r"^math\.exp has no config class: what it takes can't be read"):
        config_class(math.exp)


AUTO = {"in_channels": "auto", "num_classes": "auto"}
LOADER = {"num_workers": "auto", "resident": "auto", "prefetch_factor": 4}
SETTINGS = {
    **LOADER,
    "colour": "RED",
    "sizes": [],
    "splits": [],
    "weights": {},
    "by_name": {},
    "ratio": 0.5,
}
"""All but `path`, whose default is code."""

PLAIN = {"num_classes": "auto", "width": 8, "sizes": [1]}
EXP = {"_target_": "math.exp", "_partial_": True}
SIDES = {"width": 3, "depth": 4}
RESNET = {
    "_target_": "rootflow.models.resnet.ResNet",
    "in_channels": 3,
    "num_classes": 10,
    "depth": 18,
    "width": None,
    "dropout": 0.0,
}

SAID = [
    ({}, {}),
    ({"model": "resnet", "seed": 1, "name": "x"}, {"model": "resnet", "seed": 1, "name": "x"}),
    ({"model": ResNet}, {"model": {"name": "resnet"}}),
    ({"optimizer": SGD}, {"optimizer": {"name": "SGD"}}),
    ({"model": functools.partial(ResNet, depth=18)}, {"model": {"name": "resnet", "depth": 18}}),
    (
        {"model": config_class(ResNet)(depth=34)},
        {"model": {"name": "resnet", **AUTO, "depth": 34, "width": None, "dropout": 0.0}},
    ),
    ({"loader": LoaderSettings()}, {"loader": {"name": "loader", **LOADER}}),
    ({"loader": {"num_workers": 0}}, {"loader": {"num_workers": 0}}),
    ({"model": Plain}, {"model": {"_target_": f"{HERE}.Plain"}}),
    ({"loader": Settings()}, {"loader": {"_target_": f"{HERE}.Settings", **SETTINGS}}),
    (
        {"model": {"_target_": f"{HERE}.Plain", "head": nn.GELU}},
        {
            "model": {
                "_target_": f"{HERE}.Plain",
                "head": {"_target_": "torch.nn.modules.activation.GELU", "_partial_": True},
            }
        },
    ),
    (
        {"tracking": {"wandb": WandbSettings(mode="disabled")}},
        {"tracking": {"wandb": dataclasses.asdict(WandbSettings(mode="disabled")) | {"tags": []}}},
    ),
    (
        {"dataset": functools.partial(cifar10, split=Split(val_frac=0.2))},
        {"dataset": {"name": "cifar10", "split": {"val_frac": 0.2, "test_frac": 0.2, "seed": 0}}},
    ),
    (
        {
            "scheduler": config_class("scheduler", "chained")(
                schedulers=[
                    config_class(LinearLR)(total_iters=9, start_factor=0.5),
                    functools.partial(ExponentialLR, gamma=0.9),
                ]
            )
        },
        {
            "scheduler": {
                "name": "chained",
                "schedulers": [
                    {
                        "name": "LinearLR",
                        "start_factor": 0.5,
                        "end_factor": 1.0,
                        "total_iters": 9,
                        "last_epoch": -1,
                    },
                    {"name": "ExponentialLR", "gamma": 0.9},
                ],
            }
        },
    ),
    (
        {
            "loader": Settings(
                path=Path("a/b"),
                colour=Colour.BLUE,
                sizes=(1, 2),
                splits=(Split(seed=1),),
                weights={0: 1.5},
                ratio=np.float64(0.25),
                prefetch_factor=np.int64(5),  # type: ignore[arg-type]
            )
        },
        {
            "loader": {
                "_target_": f"{HERE}.Settings",
                **LOADER,
                "prefetch_factor": 5,
                "path": "a/b",
                "colour": "BLUE",
                "sizes": [1, 2],
                "splits": [{"val_frac": 0.1, "test_frac": 0.2, "seed": 1}],
                "weights": {0: 1.5},
                "by_name": {},
                "ratio": 0.25,
            }
        },
    ),
]


@pytest.mark.parametrize(("said", "nested"), SAID)
def test_the_nested_form_holds_what_is_said(said: dict[str, Any], nested: dict[str, Any]) -> None:
    found = to_dict(Experiment(**said))
    assert repr(found) == repr(nested)  # with the types: no numpy number, no tuple
    assert repr(to_dict(said)) == repr(nested)
    typed = from_dict(found)
    assert from_dict(to_dict(typed)) == typed


@pytest.mark.parametrize(
    "experiment",
    [
        Experiment(),
        Experiment(model="resnet", name="x", seed=3),
        Experiment(loader=Settings(sizes=(1, 2), path=Path("a"), colour=Colour.BLUE, splits=(Split(),))),
        Experiment(tracking=TrackingSettings(wandb=WandbSettings(tags=("a", "b")))),
        Experiment(dataset=config_class(cifar10)(split=Split(seed=3), root="~/data")),
        Experiment(loader=LoaderSettings(num_workers=0), optimizer=config_class(AdamW)(betas=(0.9, 0.95))),
        Experiment(scheduler=config_class("scheduler", "chained")(schedulers=[config_class(LinearLR)()])),
        Experiment(model=config_class("model", Plain)(width=3)),
    ],
)
def test_a_typed_experiment_comes_back_from_its_nested_form(experiment: Experiment) -> None:
    assert from_dict(to_dict(experiment)) == experiment


@pytest.mark.parametrize(
    "nested",
    [
        {"model": "resnet", "seed": 3, "name": "x"},
        {"loader": {"name": "loader", **LOADER}, "task": {"name": "auto"}},
        {"loader": {"_target_": f"{HERE}.Settings", **SETTINGS, "path": "./data"}},
        {"loader": {"_target_": f"{HERE}.Slotted", "width": 4, "depth": 2}},
        {"loader": {"_target_": f"{HERE}.Checked", "num_classes": 3}},
        {"loader": {"_target_": f"{HERE}.Checked", "num_classes": 3, "seed": 0}},
        {"loader": {"_target_": f"{HERE}.Checked", "num_classes": "auto"}},
        {"loader": {"_target_": f"{HERE}.Rounded", "rate": 0.123}},
        {"loader": {"num_workers": 0}, "dataset": {"split": {"val_frac": 0.2}}},
        {"optimizer": {"name": "SGD", "_target_": "torch.optim.SGD"}},
        {"scheduler": {"name": "LambdaLR", "lr_lambda": EXP, "last_epoch": -1}},
        {"model": {"_target_": "math.exp"}},
        {"model": {"_target_": f"{HERE}.Slotted", "width": 3}},
        {"model": {"_target_": f"{HERE}.Plain", **PLAIN, "head": {"_target_": f"{HERE}.Named", "name": "x"}}},
        {"model": {"_target_": f"{HERE}.Plain", **PLAIN, "head": RESNET}},
        {"model": {"_target_": f"{HERE}.Plain", **PLAIN, "head": {"_target_": f"{HERE}.Slotted", **SIDES}}},
        {"model": {"_target_": f"{HERE}.greedy", "width": 3, "more": [1, {"a": None}]}},
    ],
)
def test_a_nested_form_comes_back_from_its_typed_one(nested: dict[str, Any]) -> None:
    assert to_dict(from_dict(nested)) == nested


def test_what_a_component_leaves_out_comes_back_with_its_default() -> None:
    nested = {"dataset": {"name": "cifar10", "split": {"val_frac": 0.2}}, "model": None, "name": None}
    assert to_dict(from_dict(nested)) == {
        "dataset": {
            "name": "cifar10",
            "root": None,
            "download": True,
            "split": {"val_frac": 0.2, "test_frac": 0.2, "seed": 0},
            "augment": {"flip": "alternating", "translate": 4, "cutout": 0, "mixup": 0.0, "cutmix": 0.0},
        }
    }


def test_of_a_mapping_every_key_is_kept() -> None:
    given = {"sede": np.int64(1), "trianer": Settings(), "experiment": "mine", "seed": None, "model": ResNet}
    assert to_dict(given) == {
        "sede": 1,
        "trianer": {"_target_": f"{HERE}.Settings", **SETTINGS},
        "experiment": "mine",
        "seed": None,
        "model": {"name": "resnet"},
    }


def test_run_takes_in_a_mapping_what_it_takes_in_an_experiment(project: Path) -> None:
    data = {"name": "csv", "path": Path("a"), "target": "b"}
    given = {"dataset": data, "trainer": Trainer(max_epochs=3), "seed": np.int64(3), "sede": 1}
    with pytest.raises(ConfigError) as caught:
        rootflow.run(given)
    (told,) = caught.value.args
    assert told.startswith("sede is no setting (Python). Did you mean 'seed'?")


def test_overrides_given_as_one_text_are_told(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"^overrides is 'seed=1'; it must be a list, as \['seed=1'\]\.$"):
        rootflow.run({}, overrides="seed=1")


def test_a_component_is_said_by_its_name_or_the_path_of_its_definition() -> None:
    nested = {"optimizer": {"_target_": "torch.optim.SGD"}, "model": {"_target_": "torch.nn.GELU"}}
    said = to_dict(from_dict(nested))
    assert said["optimizer"]["name"] == "SGD"
    assert said["model"] == {"_target_": "torch.nn.modules.activation.GELU", "approximate": "none"}


def test_a_default_that_is_code_is_not_said_of_a_dataclass_either() -> None:
    assert "path" not in to_dict(Experiment(loader=Settings()))["loader"]
    assert to_dict(Experiment(loader=Settings(path=Path("b"))))["loader"]["path"] == "b"


TYPED = [
    ("path", "a", Path("a")),
    ("path", "./a", "./a"),  # which a Path would change
    ("colour", "BLUE", Colour.BLUE),
    ("sizes", [1], (1,)),
    ("splits", [{"seed": 1}], (Split(seed=1),)),
    ("splits", [{"_target_": "rootflow.data.splits.Split", "seed": 1}], (Split(seed=1),)),
    ("weights", {0: 1.5}, {0: 1.5}),
    ("by_name", {"name": {"seed": 1}}, {"name": Split(seed=1)}),
]


@pytest.mark.parametrize(("key", "value", "typed"), TYPED)
def test_values_have_the_declared_types_again(key: str, value: Any, typed: Any) -> None:
    read = from_dict({"loader": {"_target_": f"{HERE}.Settings", key: value}})
    assert read.loader == Settings(**{key: typed})
    assert from_dict(to_dict(read)) == read


def test_a_registered_component_is_the_same_by_its_import_path() -> None:
    read = from_dict({"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}})
    assert read == from_dict({"optimizer": {"name": "SGD", "lr": 0.1}})


def test_a_component_that_is_named_by_its_import_path_in_another_gets_nothing_from_rootflow() -> None:
    nested = {"model": {"_target_": f"{HERE}.Plain", "head": {"_target_": f"{HERE}.Plain", "num_classes": 3}}}
    assert from_dict(nested).model.head == config_class(Plain)(num_classes=3)
    with pytest.raises(
        ConfigError, match=r"^model\.head\.num_classes has no value, which PlainConfig needs\.$"
    ):
        from_dict({"model": {"_target_": f"{HERE}.Plain", "head": {"_target_": f"{HERE}.Plain"}}})


def test_some_fields_of_a_nested_dataclass_go_on_top_of_the_default() -> None:
    found = from_dict({"dataset": {"name": "cifar10", "augment": {"cutout": 8}}}).dataset
    assert found.augment == Augment(flip="alternating", translate=4, cutout=8)


def test_a_changed_copy_says_what_was_changed() -> None:
    read = from_dict({"loader": {"name": "loader", "num_workers": 3}})
    changed = dataclasses.replace(read, loader=dataclasses.replace(read.loader, prefetch_factor=5))
    assert to_dict(changed) == {
        "loader": {"name": "loader", **LOADER, "num_workers": 3, "prefetch_factor": 5}
    }
    assert vars(read.loader) == vars(LoaderSettings(num_workers=3))


def test_nan_is_carried_and_is_as_ever_unequal_to_itself() -> None:
    nested = {"optimizer": {"name": "SGD", "lr": math.nan}}
    read = from_dict(copy.deepcopy(nested))
    assert math.isnan(read.optimizer.lr)
    assert math.isnan(to_dict(read)["optimizer"]["lr"])
    assert repr(to_dict(Experiment(trainer={"x": np.float64("nan")}))) == "{'trainer': {'x': nan}}"


WRONG = [
    (
        {"model": nn.Linear(1, 1)},
        "model is a torch.nn.modules.linear.Linear object, which no YAML holds. Models and other objects are "
        "built by rootflow; give the class and its arguments: functools.partial(TheClass, ...).",
    ),
    ({"trainer": {"x": [torch.ones(2)]}}, "trainer.x.0 is a torch.Tensor object, which no YAML holds."),
    (
        {"model": lambda: None},
        f"model is {HERE}.<lambda>, which no import path leads to; define it at the top",
    ),
    (
        {"model": functools.partial(Plain, head=lambda: None)},
        f"model.head is {HERE}.<lambda>, which no import",
    ),
    ({"model": functools.partial(Plain, 3)}, "give the arguments by name."),
    ({"model": 3}, "model is 3; it must be the name of an option, a dataclass, a component's class or"),
    ({"model": Named()}, "model is a Named, which no registered model takes. Say which is meant: functools"),
    ({"loader": Named("y")}, "loader is a Named with a field `name`, which a config can't say"),
    ({"trainer": {"x": {(1, 2): 3}}}, "trainer.x has the key (1, 2); it must be text, a number or None."),
]


@pytest.mark.parametrize(("said", "told"), WRONG)
def test_what_no_yaml_can_hold_is_told_by_its_key(said: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        to_dict(Experiment(**said))
    assert told in str(caught.value)


NO_EXPERIMENT = [
    ({"modle": "x"}, "modle does not exist. Did you mean 'model'? There are model, dataset,"),
    ({"model": {"name": "resnt"}}, "model.name is 'resnt', which is not registered. Did you mean 'resnet'?"),
    ({"model": {"name": "resnet", "dept": 3}}, "model.dept does not exist. Did you mean 'depth'?"),
    ({"tracking": {"name": "tracking", "wandb": {"mod": 3}}}, "tracking.wandb.mod does not exist. Did you"),
    (
        {"loader": {"_target_": f"{HERE}.Checked", "num_classes": 0}},
        "loader: Checked refuses this: num_classes is",
    ),
    ({"loader": {"_target_": f"{HERE}.Checked"}}, "loader.num_classes has no value, which Checked needs."),
    ({"loader": {"_target_": f"{HERE}.Hidden", "_x": 1}}, "loader._x does not exist. There are width."),
    ({"model": {"_target_": "no.such"}}, "model._target_: importing no.such failed: ModuleNotFoundError"),
    ({"dataset": {"name": "csv", "target": "y"}}, "dataset.path has no value, which CsvTableConfig needs."),
    (
        {"scheduler": {"name": "chained", "schedulers": [{"name": "LinarLR"}]}},
        "scheduler.schedulers.0.name is 'LinarLR', which is not registered. Did you mean 'LinearLR'?",
    ),
]


@pytest.mark.parametrize(("nested", "told"), NO_EXPERIMENT)
def test_a_nested_form_that_names_nothing_is_told(nested: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(nested)
    assert str(caught.value).startswith(told)


def test_naming_options_imports_no_torch() -> None:
    code = "import sys, rootflow.config.typed as t; t.to_dict(t.Experiment(model='mlp')); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


NETS = """
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from rootflow import register


@dataclass(frozen=True)
class Kernel:
    size: tuple[int, int] = (3, 3)
    path: Path | None = None


@dataclass(frozen=True)
class Block:
    kernel: Kernel = Kernel(size=(5, 5))
    rate: float = 0.0


@dataclass(frozen=True)
class NetConfig:
    num_classes: int | Literal["auto"] = "auto"
    first: Block = Block()
    more: tuple[Block, ...] = ()


@register
class Net(nn.Module):
    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config


@register
class Small(nn.Module):
    def __init__(self, num_classes: int, *, width: int = 8, sides: tuple[int, int] = (2, 3)) -> None:
        super().__init__()


@dataclass
class Shared:
    width: int = 8


@register
class One(nn.Module):
    def __init__(self, config: Shared) -> None:
        super().__init__()


@register
class Other(nn.Module):
    def __init__(self, config: Shared) -> None:
        super().__init__()


class Unnamed(nn.Module):
    def __init__(self, config: NetConfig) -> None:
        super().__init__()
"""


@pytest.fixture
def nets(project: Path) -> Any:
    (project / "models" / "nets.py").write_text(NETS, encoding="utf-8")
    return importlib.import_module("rootflow_project.models.nets")


def test_a_model_that_takes_a_dataclass_has_its_fields_three_levels_deep(nets: Any) -> None:
    block = nets.Block(kernel=nets.Kernel(size=(1, 2), path=Path("a")))
    experiment = Experiment(model=nets.NetConfig(first=block, more=(nets.Block(rate=0.5),)))
    nested = {
        "model": {
            "name": "net",
            "num_classes": "auto",
            "first": {"kernel": {"size": [1, 2], "path": "a"}, "rate": 0.0},
            "more": [{"kernel": {"size": [5, 5], "path": None}, "rate": 0.5}],
        }
    }
    assert to_dict(experiment) == nested
    assert from_dict(nested) == experiment
    assert config_class(nets.Net) is nets.NetConfig


def test_what_a_nested_dataclass_leaves_out_is_as_its_owner_says(nets: Any) -> None:
    nested = {"model": {"name": "net", "first": {"kernel": {"path": "a"}}}}
    read = from_dict(nested)
    assert read.model.first.kernel == nets.Kernel(size=(5, 5), path=Path("a"))
    assert to_dict(read)["model"]["first"] == {"kernel": {"size": [5, 5], "path": "a"}, "rate": 0.0}


def test_a_model_with_a_plain_signature_has_its_parameters(nets: Any) -> None:
    experiment = Experiment(model=config_class(nets.Small)(sides=(4, 5)))
    nested = {"model": {"name": "small", "num_classes": "auto", "width": 8, "sides": [4, 5]}}
    assert to_dict(experiment) == nested
    assert from_dict(nested) == experiment
    assert from_dict(nested).model.num_classes == "auto"


def test_a_model_is_the_same_by_whichever_module_it_was_imported(nets: Any) -> None:
    imported = importlib.import_module("models.nets")
    partial = functools.partial(imported.Net, imported.NetConfig())
    assert to_dict(Experiment(model=partial)) == to_dict(from_dict({"model": {"name": "net"}}))
    assert from_dict({"model": {"name": "net"}}).model == imported.NetConfig()


def test_two_models_of_one_dataclass_are_told_apart(nets: Any) -> None:
    for name, model in (("one", nets.One), ("other", nets.Other)):
        nested = {"model": {"name": name, "width": 3}}
        read = from_dict(nested)
        assert isinstance(read.model, nets.Shared)
        assert to_dict(dataclasses.replace(read, seed=1)) == {**nested, "seed": 1}
        assert to_dict(Experiment(model=config_class(model)(width=3))) == nested
        assert to_dict(Experiment(model=functools.partial(model, nets.Shared(width=3)))) == nested
    assert from_dict({"model": {"name": "one"}}) != from_dict({"model": {"name": "other"}})
    with pytest.raises(
        ConfigError, match=r"^model is a Shared, which models\.nets\.One and models\.nets\.Other take"
    ):
        to_dict(Experiment(model=nets.Shared()))


def test_an_instance_of_a_made_class_is_pickled_and_copied(nets: Any) -> None:
    made = [
        config_class(nets.Small)(num_classes=3),
        config_class(nets.One)(width=3),
        config_class("model", nets.Unnamed)(first=nets.Block(rate=0.5)),
        config_class(LinearLR)(total_iters=9),
    ]
    for config in made:
        for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), copy.copy(config)):
            assert again == config
            assert type(again) is type(config)
    assert pickle.loads(pickle.dumps(made[3])).start_factor is COMPUTED


def test_a_model_that_is_not_registered_goes_by_its_import_path(nets: Any) -> None:
    experiment = Experiment(model=config_class("model", nets.Unnamed)(more=(nets.Block(),)))
    block = {"kernel": {"size": [5, 5], "path": None}, "rate": 0.0}
    nested = {
        "model": {
            "_target_": "models.nets.Unnamed",
            "num_classes": "auto",
            "first": block,
            "more": [block],
        }
    }
    assert to_dict(experiment) == nested
    assert from_dict(nested) == experiment


def test_the_example_trains_what_python_and_the_command_line_say(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "python_door.py"
    command = [sys.executable, str(example), "trainer.max_steps=2", "tracking.root=here"]
    told = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    (folder,) = (tmp_path / "here" / "manual").iterdir()
    config = from_dict(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    assert config.model.hidden == (64,)
    assert (config.trainer.max_epochs, config.trainer.max_steps) == (2, 2)
    assert f"{folder.name} {{'test/loss'" in told.stdout

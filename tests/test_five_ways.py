"""One class of a user's project, named in every way there is: the same object, parameters and identity."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rootflow.build import build
from rootflow.config.canonical import canonical, identity
from rootflow.config.compose import open_composer
from rootflow.config.schema import Config, schema_of
from rootflow.errors import ConfigError
from rootflow.registry import import_object, open_project

NET = """
from __future__ import annotations
from dataclasses import dataclass, field
from rootflow import register
from torch import nn

@dataclass(frozen=True)
class Head:
    dim: int = 4
    dropout: float = 0.0

@dataclass(frozen=True)
class NetConfig:
    in_features: int
    num_classes: int
    width: int = 8
    head: Head = field(default_factory=Head)

{decorator}
class MyNet(nn.Module):
    def __init__(self, config: NetConfig):
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Linear(config.in_features, config.width),
            nn.Linear(config.width, config.head.dim),
            nn.Linear(config.head.dim, config.num_classes),
        )
{after}
"""


@dataclass(frozen=True)
class Way:
    """What a project's files say, and what the command line says then."""

    override: str
    decorator: str = ""
    after: str = ""
    init: str = ""
    yaml: str = ""


WAYS = {
    "bare register": Way("model=mynet", decorator="@register"),
    "register with a name": Way("model=small", decorator='@register("model", "small")'),
    "register as a statement": Way("model=small", after='register("model", "small")(MyNet)'),
    "the file's name": Way("model=mynet"),
    "the file's own spelling": Way("model=my_net"),
    "a table in the file": Way("model=small", after='MODELS = {"small": MyNet}'),
    "a table in the package": Way("model=small", init='from .my_net import MyNet\nMODELS = {"small": MyNet}'),
    "an import path as the option": Way("model=models.my_net.MyNet"),
    "an import path as the name on the command line": Way("model.name=models.my_net.MyNet"),
    "an import path as the name": Way("model=mine", yaml="name: models.my_net.MyNet"),
    "a re-export": Way("model=mine", init="from models.my_net import *", yaml="name: models.MyNet"),
    "a target": Way("model=mine", yaml="_target_: models.my_net.MyNet"),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    yield tmp_path
    open_project(tmp_path / "closed")


def compose(project: Path, way: Way, *more: str) -> Config:
    text = NET.format(decorator=way.decorator, after=way.after)
    (project / "models" / "my_net.py").write_text(text)
    if way.init:
        (project / "models" / "__init__.py").write_text(way.init)
    if way.yaml:
        (project / "conf" / "model" / "mine.yaml").write_text(way.yaml)
    open_project(project)
    with open_composer() as composer:
        return composer.compose([way.override, "model.head.dim=5", *more])


def built(config: Config) -> Any:
    return build("model", config.model | {"in_features": 3, "num_classes": 2})


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_to_name_a_class_is_one_experiment(project: Path, way: Way) -> None:
    config = compose(project, way)
    model = built(config)
    assert type(model) is import_object("models.my_net.MyNet", "model")
    assert type(model) is importlib.import_module("models.my_net").MyNet
    assert {key: tuple(p.shape) for key, p in model.named_parameters()} == {
        "layers.0.weight": (8, 3),
        "layers.0.bias": (8,),
        "layers.1.weight": (5, 8),
        "layers.1.bias": (5,),
        "layers.2.weight": (2, 5),
        "layers.2.bias": (2,),
    }
    assert canonical(config)["model"] == {
        "class": "models.my_net.MyNet",
        "in_features": "auto",
        "num_classes": "auto",
        "width": 8,
        "head": {"dim": 5, "dropout": 0.0},
    }
    by_hand = {
        "_target_": "models.my_net.MyNet",
        "head": {"dim": 5},
        "in_features": "auto",
        "num_classes": "auto",
    }
    assert identity(config) == identity(dataclasses.replace(config, model=by_hand))


SETTINGS = """
import enum
from dataclasses import dataclass, field
from pathlib import Path

class Act(enum.Enum):
    RELU = "relu"
    GELU = "gelu"

@dataclass(frozen=True)
class Deep:
    gain: float = 1
    act: Act = Act.GELU

@dataclass(frozen=True)
class Head:
    dims: tuple[int, ...] = (1, 2)
    deep: Deep = field(default_factory=lambda: Deep(gain=3.5))

@dataclass(frozen=True, kw_only=True)
class Base:
    head: Head = field(default_factory=Head)
    folder: Path = Path("here")
"""

TAKER = """
from __future__ import annotations
from dataclasses import dataclass
from {module} import Base, Head

@dataclass(frozen=True)
class NetConfig(Base):
    width: int
    '''Channels of the first stage.'''
    second: Head | None = None

def net(config: NetConfig | None = None, **kwargs):
    return config, kwargs
"""


@pytest.mark.parametrize("module", ["models.settings", ".settings", "library.settings"])
def test_a_dataclass_of_other_files_is_the_components_keys_however_deep(project: Path, module: str) -> None:
    for folder in ("models", "library"):
        (project / folder).mkdir(exist_ok=True)
        (project / folder / "settings.py").write_text(SETTINGS)
    (project / "models" / "net.py").write_text(TAKER.format(module=module))
    open_project(project)
    schema = schema_of("model", {"name": "net"})
    assert schema is not None
    assert (schema.title, schema.path, schema.line) == ("models.net.net", project / "models" / "net.py", 12)
    parameters = {p.name: p for p in schema.parameters}
    assert parameters["width"].doc == "Channels of the first stage"
    assert [p.name for p in parameters["second"].fields or ()] == ["dims", "deep"]
    with open_composer() as composer:
        config = composer.compose(
            ["model=net", "model.width=3", "model.head.deep.act=RELU", "model.second.dims=[5]"]
        )
        with pytest.raises(
            ConfigError,
            match=r"model\.depth does not exist.*models\.net\.net .* takes head, folder, width, second",
        ):
            composer.compose(["model=net", "model.width=3", "model.depth=1"])
    made, rest = build("model", config.model)
    settings = importlib.import_module(type(made).__mro__[1].__module__)
    deep = settings.Deep(gain=3.5, act=settings.Act.RELU)
    assert made == type(made)(3, second=settings.Head((5,)), head=settings.Head((1, 2), deep))
    assert isinstance(made.folder, Path)
    assert rest == {}

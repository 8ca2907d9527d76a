"""Names lead to components: built-in, a user's own, and torch's."""

from __future__ import annotations

import collections
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rootflow import registry
from rootflow.errors import ConfigError
from rootflow.registry import (
    components,
    find_component,
    import_object,
    is_component,
    open_project,
    register,
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    open_project(tmp_path)
    yield tmp_path
    open_project(Path(__file__).parent / "nowhere")


def test_a_users_class_is_found_and_loaded_by_its_name(project: Path) -> None:
    (project / "models" / "mynet.py").write_text(
        "from rootflow import register\nfrom .parts import SIZE\n@register\nclass MyNet:\n    size = SIZE\n"
    )
    (project / "models" / "parts.py").write_text("SIZE = 7\n")
    found = find_component("model", "mynet")
    assert found.is_users
    assert found.load().size == 7  # type: ignore[attr-defined]


def test_a_users_name_comes_before_the_built_in_one(project: Path) -> None:
    (project / "models" / "mine.py").write_text(
        "from rootflow import register\n@register('model', 'mlp')\ndef mine(): return 'mine'\n"
    )
    assert find_component("model", "mlp").load()() == "mine"


def test_a_file_that_is_not_named_is_not_run(project: Path) -> None:
    (project / "models" / "bomb.py").write_text("raise RuntimeError('imported')\n")
    assert "mlp" in components("model")


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(ConfigError, match=r"'resnt', which is not registered\. Did you mean 'resnet'\?"):
        find_component("model", "resnt")


def test_an_error_in_a_users_file_says_the_line(project: Path) -> None:
    (project / "models" / "bad.py").write_text(
        "from rootflow import register\nimport nothing_of_this_name\n@register\nclass Bad: ...\n"
    )
    with pytest.raises(ConfigError, match=r"No module named 'nothing_of_this_name'.*bad\.py:2") as caught:
        find_component("model", "bad").load()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_dotted_path_that_is_no_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a class or function"):
        import_object("math.pi", "model._target_")
    with pytest.raises(ConfigError, match="has no attribute 'nothing'"):
        import_object("math.nothing", "model._target_")


def test_torch_classes_have_their_own_names() -> None:
    import torch

    assert find_component("optimizer", "AdamW").load() is torch.optim.AdamW
    assert find_component("scheduler", "OneCycleLR").load() is torch.optim.lr_scheduler.OneCycleLR
    assert "Optimizer" not in components("optimizer")


def test_registering_returns_the_object_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})

    def net() -> int:
        return 3

    assert register("model", "three")(net) is net
    assert registry._registered["model", "three"].name == "three"


def test_a_group_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"group 'modle'.*Did you mean 'model'"):
        register("modle", "x")(print)


def test_a_loss_and_a_diagnostic_may_be_registered_from_their_folders(project: Path) -> None:
    for folder in ("losses", "diagnostics"):
        (project / folder).mkdir()
        (project / folder / "mine.py").write_text(
            "from rootflow import register\n@register\ndef mine(): return 7\n"
        )
    assert find_component("loss", "mine").load()() == 7
    assert find_component("diagnostic", "mine").load()() == 7


def models(project: Path, **texts: str) -> None:
    for name, text in texts.items():
        (project / "models" / f"{name}.py").write_text(text)


def loaded(name: str) -> Any:
    return find_component("model", name).load()


def test_a_file_names_the_class_or_function_that_it_is_called_for(project: Path) -> None:
    models(project, my_net="class Part: ...\nclass MyNet: ...\n", tiny="def tiny(): return 'tiny'\n")
    models(project, __init__="def init(): ...\n", _part="class Part: ...\n", part="class _Part: ...\n")
    assert loaded("mynet").__name__ == loaded("my_net").__name__ == "MyNet"
    assert loaded("tiny")() == "tiny"
    assert [n for n, c in components("model").items() if c.is_users] == ["my_net", "mynet", "tiny"]


def test_a_function_beside_a_class_of_its_name_has_its_own_spelling(project: Path) -> None:
    models(project, my_net="class MyNet: ...\ndef my_net(): return MyNet()\n")
    assert loaded("mynet").__name__ == "MyNet"
    assert loaded("my_net").__name__ == "my_net"


def test_a_name_in_register_takes_the_place_of_the_files(project: Path) -> None:
    models(project, my_net="from rootflow import register\n@register(name='small')\nclass MyNet: ...\n")
    assert [name for name, found in components("model").items() if found.is_users] == ["small"]


def test_a_table_names_what_is_defined_or_imported_beside_it(project: Path) -> None:
    models(
        project,
        nets="class A: ...\nclass B: ...\nMODELS: dict[str, type] = {'first': A, 'b.2': B}\nREGISTRY = {'last': A}\nmodels = {'no': B}\n",
    )
    models(project, __init__="from .nets import B\nAVAILABLE_MODELS = {'second': B, 'no': 3}\n")
    assert loaded("first").__name__ == loaded("last").__name__ == "A"
    assert loaded("second") is loaded("b.2") is import_object("models.B", "x")
    assert "no" not in components("model")


def test_a_table_of_something_else_names_no_models(project: Path) -> None:
    models(project, net="from math import sin, cos\nACTIVATIONS = {'sin': sin}\nmodels = {'cos': cos}\n")
    assert not [found for found in components("model").values() if found.is_users]


def test_register_may_be_a_statement(project: Path) -> None:
    text = "from rootflow import register\nclass Net: ...\nregister('model', 'small')(Net)\nprint('ran')\n"
    models(project, nets=text)
    assert loaded("small").__name__ == "Net"


def test_names_are_read_in_every_form_of_the_decorator(project: Path) -> None:
    models(
        project,
        many="import rootflow\nfrom rootflow import register\n@register\nclass MyNet: ...\n"
        "@register('task', 'other')\nclass B: ...\n@rootflow.register(name='third', group='model')\ndef c(): ...\n"
        "@staticmethod\ndef d(): ...\nif True:\n    @register()\n    class Within: ...\n",
    )
    assert {n for n, found in components("model").items() if found.is_users} == {"mynet", "third", "within"}
    assert find_component("task", "other").qualname == "B"


def test_a_broken_file_breaks_no_other(project: Path) -> None:
    models(project, good="class Good:\n    text = '\\d'\n", broken="class Broken(:\n", odd="\0")
    (project / "models" / "latin.py").write_bytes(b"# \xe9\nclass Latin: ...\n")
    (project / "models" / "marked.py").write_bytes(b"\xef\xbb\xbfclass Marked: ...\n")
    assert {"good", "marked"} < components("model").keys()
    with pytest.warns(Warning, match="invalid escape"):
        assert loaded("good").__name__ == "Good"
    with pytest.raises(ConfigError, match=r"models/broken\.py can't be read: line 1: invalid syntax"):
        find_component("model", "broken")


def test_two_definitions_of_one_name_are_told_apart_by_file_and_line(project: Path) -> None:
    models(
        project,
        net="class Net: ...\n",
        other="from rootflow import register\n\n@register\nclass Net: ...\n",
        fine="class Fine: ...\n",
    )
    assert "net" in components("model")
    assert loaded("fine").__name__ == "Fine"
    with pytest.raises(ConfigError) as caught:
        find_component("model", "net")
    assert str(caught.value) == (
        "model.name is 'net', which means two things: models/net.py:1 (models.net.Net) and "
        "models/other.py:4 (models.other.Net). Rename one, or give the import path: model=models.net.Net"
    )


def test_one_definition_named_twice_is_no_contradiction(project: Path) -> None:
    models(project, net="class Net: ...\n", __init__="from models.net import Net\nMODELS = {'net': Net}\n")
    assert loaded("net") is import_object("models.net.Net", "x")


def test_a_class_that_is_not_registered_is_pointed_at(project: Path) -> None:
    models(project, net="class _Part: ...\n\nclass Block: ...\n")
    told = r"models/net\.py:3 defines Block: put @register above it, or name models\.net\.Block\."
    for asked in ("block", "Block", "net"):
        with pytest.raises(ConfigError, match=told):
            find_component("model", asked)
    with pytest.raises(ConfigError, match=r"Registered: [^:]*$"):
        find_component("dataset", "block")


def test_an_import_path_is_a_name(project: Path) -> None:
    models(project, net="class Net: ...\n")
    assert loaded("models.net.Net") is import_object("models.net.Net", "x")
    assert find_component("model", "collections.Counter").load() is collections.Counter


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("models.net.Nett", r"models/net\.py has no Nett\. Did you mean 'Net'\? It defines Net\."),
        ("models.nett.Net", r"there is no models/nett\.py\."),
        ("nowhere_at_all.Net", r"'nowhere_at_all\.Net', which is not registered\."),
    ],
)
def test_an_import_path_that_leads_nowhere_is_refused(project: Path, path: str, told: str) -> None:
    models(project, net="class Net: ...\n")
    with pytest.raises(ConfigError, match=told):
        find_component("model", path)


def test_only_what_a_project_has_can_do_without_a_file_of_settings(project: Path) -> None:
    models(project, my_net="class MyNet: ...\n")
    options = [
        "mynet",
        "my_net",
        "models.my_net.MyNet",
        "torch.nn.Linear",
        "mlp",
        "nothing",
        "nowhere_at_all.N",
    ]
    assert [is_component("model", option) for option in options] == [True] * 4 + [False] * 3
    assert not is_component("experiment", "mynet")


def test_a_file_of_the_project_is_imported_once_by_whatever_name(project: Path) -> None:
    (project / "models" / "sub").mkdir()
    (project / "models" / "sub" / "deep.py").write_text("class Deep: ...\n")
    models(
        project,
        net="from models.base import Base\nfrom .base import Base as Same\nassert Base is Same\n"
        "class Net(Base): ...\n",
        base="class Base: ...\n",
    )
    base = importlib.import_module("models.base")
    assert issubclass(loaded("net"), base.Base)
    assert base.__name__ == base.__spec__.name == "rootflow_project.models.base"
    assert loaded("models.sub.deep.Deep") is importlib.import_module("models.sub.deep").Deep


def test_a_file_that_a_script_imported_before_is_not_imported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "diagnostics").mkdir()
    (tmp_path / "diagnostics" / "mine.py").write_text("class Mine: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module("diagnostics.mine")
    open_project(tmp_path)
    assert find_component("diagnostic", "mine").load() is mine.Mine
    del sys.modules["diagnostics.mine"]
    open_project(Path(__file__).parent / "nowhere")


def test_an_installed_package_of_a_folders_name_stays_what_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = project / "site" / "datasets"
    site.mkdir(parents=True)
    (site / "__init__.py").write_text("class Installed: ...\n")
    (site / "load.py").write_text("whose = 'installed'\n")
    (project / "datasets").mkdir()
    (project / "datasets" / "load.py").write_text("whose = 'own'\ndef load(): return whose\n")
    monkeypatch.syspath_prepend(str(site.parent))
    assert import_object("datasets.Installed", "x").__module__ == "datasets"
    assert importlib.import_module("datasets.load").whose == "installed"
    assert find_component("dataset", "load").load()() == "own"
    assert import_object("datasets.load.load", "x")() == "own"
    for name in ("datasets", "datasets.load"):
        del sys.modules[name]


def test_a_definition_has_one_path_through_every_re_export(project: Path) -> None:
    models(
        project,
        net="class Net: ...\nAlias = Net\n",
        __init__="from .net import *\nfrom .net import Alias as A\n",
    )
    paths = ["models.net.Net", "models.Net", "models.A", "models.net.Alias"]
    assert {find_component("model", path).definition for path in paths} == {"models.net.Net"}
    adamw = [
        find_component("optimizer", name)
        for name in ("AdamW", "torch.optim.AdamW", "torch.optim.adamw.AdamW")
    ]
    assert {found.definition for found in adamw} == {"torch.optim.adamw.AdamW"}
    assert find_component("model", "torch.nn.Linear").definition == "torch.nn.modules.linear.Linear"
    assert find_component("model", "math.sin").definition == "math.sin"


def test_names_of_a_project_go_when_another_is_opened(project: Path) -> None:
    models(project, net="from rootflow import register\n@register('model', 'gone')\nclass Net: ...\n")
    assert loaded("gone").__name__ == "Net"
    open_project(project / "elsewhere")
    assert "gone" not in components("model")


def test_a_project_opened_after_another_takes_its_place_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("one", "two"):
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models" / "own_net.py").write_text(f"class OwnNet:\n    project = {name!r}\n")
    for name in ("one", "two"):
        open_project(tmp_path / name)
        assert import_object("models.own_net.OwnNet", "model").project == name  # type: ignore[attr-defined]
        assert [path for path in sys.path if path.startswith(str(tmp_path))] == [str(tmp_path / name)]
    open_project(tmp_path / "closed")

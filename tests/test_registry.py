"""Names lead to components: built-in, a user's own, and torch's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootflow import registry
from rootflow.errors import ConfigError
from rootflow.registry import components, find_component, import_object, open_project, register


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

"""Who set a key, and what differs from the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootflow.config.compose import open_composer
from rootflow.config.explain import Difference, Explanation, differences, explain
from rootflow.config.folders import shipped_folder
from rootflow.config.layers import Layer, read_layer
from rootflow.errors import ConfigError


def explained(key: str, *overrides: str, layers: tuple[Layer, ...] = ()) -> list[Explanation]:
    with open_composer(layers=layers) as composer:
        return explain(composer.compose(overrides), composer.origins(overrides), key)


def chain(key: str, *overrides: str, layers: tuple[Layer, ...] = ()) -> list[tuple[object, str]]:
    (found,) = explained(key, *overrides, layers=layers)
    shipped = str(shipped_folder("conf"))
    return [(s.value, s.place.replace(shipped, "shipped").partition(" of ")[0]) for s in found.chain]


@pytest.fixture
def layered(project: Path) -> Path:
    """A project that sets optimizer.lr everywhere it can."""
    for name, text in {
        "config": "defaults:\n  - rootflow\n  - _self_\noptimizer:\n  lr: 0.3\n",
        "optimizer/mine": "defaults:\n  - sgd\nlr: 0.2\n",
        "experiment/mine": "# @package _global_\ndefaults:\n  - override /optimizer: mine\n\noptimizer: {lr: 0.4}\n",
    }.items():
        path = project / "conf" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return project


def test_the_chain_names_everyone_who_set_a_key_in_the_order_of_precedence(layered: Path) -> None:
    assert chain("optimizer.lr", "experiment=mine", "optimizer.lr=0.5") == [
        (0.001, "default"),
        ("auto", "shipped/optimizer/sgd.yaml:3"),
        (0.2, "conf/optimizer/mine.yaml:3"),
        (0.3, "conf/config.yaml:5"),
        (0.4, "conf/experiment/mine.yaml:5"),
        ("0.5", "command line"),
    ]


def test_the_chain_names_python_and_a_config_file(project: Path) -> None:
    python = Layer("Python", {"optimizer": {"name": "SGD", "lr": 0.1}})
    file = read_layer("my.yaml", "seed: 3\noptimizer:\n  lr: 0.2\n")
    assert chain("optimizer.lr", layers=(python, file)) == [
        (0.001, "default"),
        (0.1, "Python"),
        (0.2, "my.yaml:3"),
    ]
    assert chain("seed", layers=(python, file))[-1] == (3, "my.yaml:1")


def test_an_explanation_says_what_a_key_is_and_takes(project: Path) -> None:
    (found,) = explained("lr", "optimizer=sgd")
    assert (found.key, found.value, found.takes) == ("optimizer.lr", "auto", "a number above 0 or 'auto'")
    assert found.about == "learning rate"
    (nested,) = explained("tracking.wandb.mode")
    assert nested.takes == "'auto' or 'online' or 'offline' or 'disabled'"
    assert [s.place.partition(" of ")[0] for s in nested.chain] == ["default"]


def test_a_group_is_explained_key_by_key(project: Path) -> None:
    assert [one.key for one in explained("loader")] == [
        "loader.name",
        "loader.num_workers",
        "loader.resident",
        "loader.prefetch_factor",
    ]


def test_a_key_that_is_not_there_is_told_the_nearest(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lrr is no key .* Did you mean 'optimizer\.lr'\?"):
        explained("optimizer.lrr")


def test_the_choice_of_a_group_has_a_place(layered: Path) -> None:
    with open_composer() as composer:
        for overrides, value, place in (
            ([], "adamw", f"{shipped_folder('conf')}/rootflow.yaml:7"),
            (["experiment=mine"], "mine", "conf/experiment/mine.yaml:3"),
            (["experiment=mine", "optimizer=sgd"], "sgd", "command line"),
        ):
            choice = composer.origins(overrides).choice("optimizer")
            assert choice is not None
            assert (choice.value, choice.place) == (value, place)


def test_differences_are_those_keys_that_are_not_as_by_default(project: Path) -> None:
    overrides = ["scheduler=constant", "seed=3"]
    with open_composer() as composer:
        default = composer.compose(["scheduler=linear"])
        found = differences(default, composer.compose(overrides), composer.origins(overrides))
    shipped = shipped_folder("conf")
    assert found == [
        Difference("scheduler.shape", "linear", "constant", f"{shipped}/scheduler/constant.yaml:3"),
        Difference("scheduler.warmup", "auto", "0 steps", f"{shipped}/scheduler/constant.yaml:4"),
        Difference("seed", 0, 3, "command line"),
    ]

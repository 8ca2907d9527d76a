"""The same experiment from the command line, a config file and Python: one identity, one precedence."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import rootflow
from rootflow import Experiment, config_class
from rootflow.config import to_dict
from rootflow.config.canonical import identity
from rootflow.config.compose import open_composer
from rootflow.config.layers import Layer, load_layer, read_layer
from rootflow.config.overrides import quoted
from rootflow.config.plain_yaml import escaped, to_yaml
from rootflow.config.schema import Config
from rootflow.errors import ConfigError
from rootflow.models.resnet import ResNet
from rootflow.train.trainer import Trainer
from tests.cli.conftest import Rootflow
from tests.cli.conftest import rootflow as rootflow_command
from tests.config.conftest import project

__all__ = ["project", "rootflow_command"]


def compose(*overrides: str, layers: tuple[Layer, ...] = ()) -> Config:
    with open_composer(layers=layers) as composer:
        return composer.compose(list(overrides))


def from_python(experiment: Experiment | dict[str, Any], *overrides: str) -> Config:
    nested = to_dict(experiment) if isinstance(experiment, Experiment) else experiment
    return compose(*overrides, layers=(Layer("Python", escaped(nested)),))


COMMAND = (
    "model=resnet",
    "model.depth=34",
    "trainer.max_epochs=3",
    "dataset=csv",
    "dataset.path=a",
    "dataset.target=b",
)


@pytest.mark.parametrize(
    "experiment",
    [
        Experiment(
            model=config_class(ResNet)(depth=34),
            trainer=Trainer(max_epochs=3),
            dataset={"name": "csv", "path": "a", "target": "b"},
        ),
        Experiment(
            model=functools.partial(ResNet, depth=34),
            trainer={"max_epochs": 3},
            dataset={"name": "csv", "path": "a", "target": "b"},
        ),
        {
            "model": {"_target_": "rootflow.models.resnet.ResNet", "depth": 34},
            "trainer": {"max_epochs": 3},
            "dataset": {"name": "csv", "path": "a", "target": "b"},
        },
    ],
    ids=["dataclasses", "partial", "target"],
)
def test_python_and_the_command_line_give_one_identity(project: Path, experiment: Any) -> None:
    assert identity(from_python(experiment)) == identity(compose(*COMMAND))


def test_a_group_in_python_may_be_an_options_name(project: Path) -> None:
    assert from_python(Experiment(optimizer="sgd")).optimizer == compose("optimizer=sgd").optimizer
    with pytest.raises(ConfigError, match="optimizer has no option 'sdg'"):
        from_python(Experiment(optimizer="sdg"))


def test_a_config_file_gives_the_same_config(project: Path) -> None:
    name = "a ${b} \\${c} \\"
    config = compose(*COMMAND, f"name={quoted(name)}")
    assert config.name == name
    (project / "saved.yaml").write_text(to_yaml(config.to_dict()))
    again = compose(layers=(load_layer(project / "saved.yaml"),))
    assert again == config
    assert identity(again) == identity(config)
    assert compose("model=mlp", layers=(load_layer("saved.yaml"),)).model == compose("model=mlp").model


def test_a_file_with_defaults_builds_on_what_it_names(project: Path) -> None:
    text = "defaults:\n  - rootflow\n  - override model: resnet\n  - _self_\nseed: 4\n"
    config = compose("model.depth=34", layers=(read_layer("mine", text),))
    assert (config.model["name"], config.model["depth"], config.seed) == ("resnet", 34, 4)


def test_the_later_layer_overrules(project: Path) -> None:
    """A key set in six places; taking them away from the top shows the one below."""
    (project / "conf" / "experiment").mkdir()
    (project / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ntrainer:\n  log_every: 6\n"
    )
    (project / "conf" / "trainer").mkdir()
    (project / "conf" / "trainer" / "mine.yaml").write_text("name: trainer\nlog_every: 3\n")
    python = Layer("Python", {"trainer": {"log_every": 4}})
    file = read_layer("file", "trainer:\n  log_every: 5\n")
    choice = ("trainer=mine", "experiment=mine")
    assert compose("trainer.log_every=7", *choice, layers=(python, file)).trainer["log_every"] == 7
    assert compose(*choice, layers=(python, file)).trainer["log_every"] == 6
    assert compose(choice[0], layers=(python, file)).trainer["log_every"] == 5
    assert compose(choice[0], layers=(python,)).trainer["log_every"] == 4
    assert compose(choice[0]).trainer["log_every"] == 3
    assert compose().trainer["log_every"] == 50


def test_the_projects_config_overrules_python(project: Path) -> None:
    (project / "conf" / "config.yaml").write_text("defaults:\n  - rootflow\n  - _self_\nseed: 7\n")
    assert from_python(Experiment(seed=3)).seed == 7
    assert from_python(Experiment(seed=3), "seed=8").seed == 8
    (project / "conf" / "config.yaml").unlink()
    assert from_python(Experiment(seed=3)).seed == 3


def test_a_choice_of_the_command_line_leaves_nothing_of_the_one_it_replaces(project: Path) -> None:
    experiment = Experiment(model=config_class(ResNet)(depth=34), seed=2)
    config = from_python(experiment, "model=mlp")
    assert config.model == compose("model=mlp").model
    assert config.seed == 2


def test_a_mistake_in_python_is_told_as_python(project: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        from_python({"model": {"name": "resnet", "dpeth": 34}, "sede": 1})
    assert "model.dpeth does not exist (Python). Did you mean 'depth'?" in str(caught.value)
    assert "sede is no setting (Python). Did you mean 'seed'?" in str(caught.value)


def test_python_trains_what_the_command_line_trains(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = rootflow.run(
        Experiment(trainer=Trainer(max_steps=2), tracking={"wandb": {"mode": "disabled"}}),
        overrides=["seed=3"],
    )
    record = json.loads((result.folder / "run.json").read_text())
    assert record["identity"] == identity(compose("trainer.max_steps=2", "seed=3"))
    assert record["overrides"] == ["seed=3"]
    assert yaml.safe_load((result.folder / "config.yaml").read_text()) == record["config"]


@pytest.mark.slow
def test_a_shown_config_trains_the_identical_run(rootflow_command: Rootflow, tmp_path: Path) -> None:
    typed = ["model.hidden=[8]", "trainer.max_steps=12", "trainer.log_every=2", "seed=5"]
    assert rootflow_command("train", *typed).returncode == 0
    shown = rootflow_command("config", *typed)
    piped = subprocess.run(
        [sys.executable, "-m", "rootflow", "train", "--config", "-"],
        input=shown.stdout,
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "WANDB_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert piped.returncode == 0, piped.stderr
    first, second = (
        json.loads(path.read_text()) for path in sorted((tmp_path / "runs" / "manual").glob("*/run.json"))
    )
    assert first["identity"] == second["identity"]
    assert first["config"] == second["config"]
    assert first["best"] == second["best"]
    assert first["test"] == second["test"]

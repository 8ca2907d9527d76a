"""What is composed from which files, and in which order they overrule."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootflow.config.compose import compose_job, open_composer
from rootflow.config.schema import Config
from rootflow.errors import ConfigError
from tests.config.conftest import Compose


def test_every_default_of_every_component_is_in_the_config(compose: Compose) -> None:
    config = compose("optimizer=adamw")
    assert config.optimizer["betas"] == [0.9, 0.999]
    assert config.optimizer["name"] == "AdamW"
    assert "params" not in config.optimizer
    assert config.trainer["max_epochs"] == "auto"
    assert config.tracking["wandb"]["mode"] == "auto"
    assert config.model["num_classes"] == "auto"
    assert (config.seed, config.name) == (0, None)


def test_a_parameter_that_no_file_lists_can_be_set(compose: Compose) -> None:
    assert compose("optimizer.eps=1e-5").optimizer["eps"] == 1e-5
    assert compose("+optimizer.eps=1e-5".removeprefix("+")).optimizer["eps"] == 1e-5


def test_the_command_line_overrules_an_experiment_which_overrules_an_option(
    compose: Compose, project: Path
) -> None:
    (project / "conf" / "experiment").mkdir()
    (project / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /optimizer: sgd\noptimizer:\n  momentum: 0.5\n  lr: 0.2\n"
    )
    assert compose("optimizer=sgd").optimizer["momentum"] == 0.9
    config = compose("experiment=mine", "optimizer.lr=0.3")
    assert (config.optimizer["name"], config.optimizer["momentum"], config.optimizer["lr"]) == (
        "SGD",
        0.5,
        0.3,
    )


def test_a_setting_left_over_from_another_choice_is_told_with_its_place(
    compose: Compose, project: Path
) -> None:
    (project / "conf" / "experiment").mkdir()
    (project / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /optimizer: sgd\noptimizer:\n  momentum: 0.5\n"
    )
    with pytest.raises(
        ConfigError, match=r"optimizer\.momentum does not exist \(conf/experiment/mine\.yaml:5\)"
    ):
        compose("experiment=mine", "optimizer=adamw")


def test_a_projects_option_hides_the_shipped_one_of_that_name(compose: Compose, project: Path) -> None:
    (project / "conf" / "model" / "mlp.yaml").write_text("name: mlp\nhidden: [7]\n")
    assert compose().model["hidden"] == [7]


def test_a_folder_given_on_the_command_line_comes_first(compose: Compose, project: Path) -> None:
    (project / "conf" / "model" / "mlp.yaml").write_text("name: mlp\nhidden: [7]\n")
    (project / "other" / "model").mkdir(parents=True)
    (project / "other" / "model" / "mlp.yaml").write_text("name: mlp\nhidden: [8]\n")
    assert compose(extra=project / "other").model["hidden"] == [8]


def test_a_projects_own_primary_config_builds_on_the_shipped_one(compose: Compose, project: Path) -> None:
    (project / "conf" / "config.yaml").write_text(
        "defaults:\n  - rootflow\n  - override model: convnet\n  - _self_\nseed: 7\n"
    )
    config = compose()
    assert (config.model["name"], config.seed) == ("convnet", 7)


def test_an_experiment_overrules_a_projects_config(compose: Compose, project: Path) -> None:
    (project / "conf" / "experiment").mkdir()
    (project / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: resnet\nseed: 3\n"
    )
    config = project / "conf" / "config.yaml"
    config.write_text("defaults:\n  - rootflow\n  - override model: convnet\n  - _self_\nseed: 7\n")
    assert (compose().seed, compose("experiment=mine").seed) == (7, 3)
    assert (compose().model["name"], compose("experiment=mine").model["name"]) == ("convnet", "resnet")
    config.write_text("defaults:\n  - rootflow\n  - experiment: null\n  - _self_\nseed: 7\n")
    assert compose("experiment=mine").seed == 7, "a config may say itself where an experiment comes"


def test_an_option_may_build_on_another(compose: Compose, project: Path) -> None:
    (project / "conf" / "model" / "small.yaml").write_text("defaults:\n  - mlp\n  - _self_\nhidden: [4]\n")
    config = compose("model=small")
    assert (config.model["name"], config.model["hidden"]) == ("mlp", [4])


def test_values_may_refer_to_one_another(compose: Compose) -> None:
    assert compose("trainer.max_steps=${seed}", "seed=5").trainer["max_steps"] == 5


def test_hydra_is_as_it_was_after_composing(project: Path) -> None:
    from hydra.core.global_hydra import GlobalHydra

    with open_composer() as composer:
        composer.compose([])
    assert not GlobalHydra.instance().is_initialized()


def test_the_jobs_of_a_multirun_are_known_before_it(project: Path) -> None:
    with open_composer() as composer:
        configs = composer.compose_jobs(["optimizer=adamw,sgd", "seed=0,1,2"])
        assert [(c.optimizer["name"], c.seed) for c in configs] == [
            ("AdamW", 0),
            ("AdamW", 1),
            ("AdamW", 2),
            ("SGD", 0),
            ("SGD", 1),
            ("SGD", 2),
        ]
        assert len(composer.compose_jobs(["+sweeps=seeds"])) == 6
        with pytest.raises(ConfigError, match="seed is -1"):
            composer.compose_jobs(["seed=0,-1"])


def test_the_command_line_replaces_what_a_sweep_file_varies(project: Path) -> None:
    with open_composer() as composer:
        configs = composer.compose_jobs(["+sweeps=seeds", "seed=7"])
        ran = composer.multirun(_seed_of_job, ["+sweeps=seeds", "seed=7"], project / "sweep")
    assert [c.seed for c in configs] == ran == [7, 7]


def _seed_of_job(_cfg: object) -> int:
    return compose_job()[0].seed


def test_a_glob_is_every_option_that_it_matches(project: Path) -> None:
    with open_composer() as composer:
        configs = composer.compose_jobs(["model=glob(*net)"])
    assert [config.model["name"] for config in configs] == ["convnet", "resnet"]


def test_a_mapping_for_a_group_sets_its_keys_and_no_others(project: Path) -> None:
    (project / "conf" / "config.yaml").write_text(
        "defaults: [rootflow, _self_]\ntrainer:\n  micro_batch_size: 64\n"
    )
    with open_composer() as composer:
        overrides = composer.reader.expanded(["trainer={batch_size: 32, max_time: 5 min}", "seed=1"])
        config = composer.compose(overrides)
    assert overrides == ["trainer.batch_size=32", 'trainer.max_time="5 min"', "seed=1"]
    assert (config.trainer["batch_size"], config.trainer["micro_batch_size"]) == (32, 64)


def test_jobs_that_would_be_the_same_experiment_are_refused(project: Path) -> None:
    with open_composer() as composer:
        with pytest.raises(ConfigError, match=r"jobs 0 and 2 of 4 \(command line\) are the same experiment"):
            composer.compose_jobs(["optimizer.lr=0.1,1.0e-1", "seed=0,1"])
        with pytest.raises(ConfigError, match=r"job 1 of 3 \(seed=-1\): seed is -1 .*command line"):
            composer.compose_jobs(["seed=0,-1,2"])


@pytest.mark.parametrize(
    "override",
    [
        "model=[",
        "a=b=c=,",
        "=",
        "x={",
        "model.hidden=" + "[" * 3000,
        "model.hidden=[1,",
        "~nothing",
        "hydra.nothing=1",
        "\0=1",
        "é=1",
    ],
)
def test_strange_overrides_end_in_an_error_of_ours(compose: Compose, override: str) -> None:
    with pytest.raises(ConfigError):
        compose(override)


def test_an_experiment_may_be_added_and_emptied_as_hydras_users_write_it(compose: Compose) -> None:
    assert compose("+experiment=mnist_mlp") == compose("experiment=mnist_mlp")
    assert compose("experiment=null") == compose()


def test_a_sweep_may_be_chosen_without_the_plus(project: Path) -> None:
    with open_composer() as composer:
        assert composer.compose_jobs(["sweeps=seeds"]) == composer.compose_jobs(["+sweeps=seeds"])


def test_a_choice_that_a_file_overrules_is_told_and_the_file_alone_holds(
    compose: Compose, project: Path
) -> None:
    (project / "conf" / "config.yaml").write_text("defaults: [rootflow, _self_]\nmodel:\n  name: convnet\n")
    assert compose().model == compose_alone(project, "model=convnet").model
    with pytest.raises(
        ConfigError, match=r"model=resnet \(command line\) has no effect: model\.name is 'convnet'"
    ):
        compose("model=resnet")


def compose_alone(project: Path, *overrides: str) -> Config:
    """Compose without the project's config.yaml."""
    (project / "conf" / "config.yaml").rename(project / "away.yaml")
    try:
        with open_composer() as composer:
            return composer.compose(overrides)
    finally:
        (project / "away.yaml").rename(project / "conf" / "config.yaml")

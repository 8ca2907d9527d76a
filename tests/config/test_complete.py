"""Candidates for the word at the cursor, from the shipped configs and a project's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootflow.config.complete import FILES, SoFar, complete_key, complete_override, options, primaries

BARE = '''
from dataclasses import dataclass
from typing import Optional
from rootflow.registry import register

@dataclass
class Stem:
    width: int = 8
    """channels"""

@register("model", "bare")
class Bare:
    def __init__(self, num_classes: int, gain: float = 1.0, stem: Optional[Stem] = None): ...
'''


def texts(word: str, *overrides: str, extra: Path | None = None, config: Path | None = None) -> list[str]:
    return list(complete_override(word, SoFar(overrides, extra=extra, config=config)))


def test_a_group_goes_on_by_an_option_or_by_a_key(project: Path) -> None:
    assert complete_override("mod", SoFar()) == {"model=": "now mlp", "model.": "keys, now mlp"}


def test_an_empty_word_can_become_a_group_a_setting_a_short_name_or_a_sweep(project: Path) -> None:
    found = texts("")
    assert {"model=", "experiment=", "model.", "seed=", "name=", "lr=", "batch_size=", "+sweeps="} < set(
        found
    )
    assert "task." not in found  # what it is shows with the data
    assert not {"sweeps=", "+model=", "experiment."} & set(found)


@pytest.mark.parametrize(
    ("word", "overrides", "expected"),
    [
        ("model.h", (), ["model.hidden="]),
        ("model.d", ("model=resnet",), ["model.depth=", "model.dropout="]),
        ("model.d", ("--model=resnet",), ["model.depth=", "model.dropout="]),
        ("model.w", ("experiment=cifar_resnet",), ["model.width="]),
        ("model.w", ("experiment=cifar_resnet", "model=mlp"), []),
        ("tracking.wandb.m", (), ["tracking.wandb.mode="]),
        ("trainer.max_s", ("trainer=quick",), ["trainer.max_steps=", "trainer.max_samples="]),
        ("task.", (), []),
        ("experiment.", ("experiment=cifar_resnet",), []),
    ],
)
def test_keys_are_those_of_what_is_chosen_so_far(
    project: Path, word: str, overrides: tuple[str, ...], expected: list[str]
) -> None:
    assert texts(word, *overrides) == expected


def test_keys_of_several_options_are_offered_together(project: Path) -> None:
    found = texts("model.", "model=resnet,mlp")
    assert {"model.depth=", "model.hidden="} < set(found)


def test_keys_say_what_they_mean(project: Path) -> None:
    assert complete_override("tracking.r", SoFar()) == {"tracking.root=": "folder of the run folders"}


def test_a_component_without_a_yaml_is_an_option_with_keys(project: Path) -> None:
    (project / "models" / "bare.py").write_text(BARE)
    assert texts("model=b") == ["model=bare"]
    expected = ["model.num_classes=", "model.gain=", "model.stem.width=", "model.stem="]
    assert texts("model.", "model=bare") == expected
    assert texts("model.stem=", "model=bare") == ["model.stem=null"]
    assert texts("model.num_classes=", "model=bare") == ["model.num_classes=auto"]


def test_keys_that_only_a_yaml_says_are_offered(project: Path) -> None:
    (project / "conf" / "model" / "own.yaml").write_text("_target_: no.such.Net\nwide: {deep: 1}\n")
    assert texts("model.", "model=own") == ["model.wide.deep="]


def test_a_projects_config_says_the_defaults(project: Path) -> None:
    (project / "conf" / "config.yaml").write_text("defaults:\n  - rootflow\n  - override model: resnet\n")
    assert texts("model.d") == ["model.depth=", "model.dropout="]
    assert texts("optimizer.l") == ["optimizer.lr="]


def test_another_config_to_start_from_says_the_defaults(project: Path) -> None:
    (project / "conf" / "big.yaml").write_text("defaults: [rootflow, {override /model: resnet}]\n")
    assert list(complete_override("model.de", SoFar(primary="big"))) == ["model.depth="]
    assert {"big", "config", "rootflow"} == set(primaries(SoFar()))


@pytest.mark.parametrize(
    "text",
    [
        "model: resnet",
        "model: {name: resnet}\noptimizer: {lr: 0.1}",
        "defaults: [rootflow, {override model: resnet}]",
    ],
)
def test_a_config_file_says_the_defaults(project: Path, text: str) -> None:
    (project / "config.yaml").write_text(text)
    for config in (project / "config.yaml", project):  # the folder of a run holds one
        assert texts("model.de", config=config) == ["model.depth="]
        assert texts("optimizer.w", config=config) == ["optimizer.weight_decay="]


def test_a_folder_of_configs_on_the_line_is_searched_first(project: Path) -> None:
    folder = project / "more" / "model"
    folder.mkdir(parents=True)
    (folder / "mlp.yaml").write_text("# Mine.\nname: resnet\n")
    (folder / "mine.yaml").write_text("name: resnet\n")
    assert texts("model=m", extra=folder.parent) == ["model=mine", "model=mlp"]
    assert options("model", SoFar(extra=folder.parent))["mlp"] == "Mine."
    assert texts("model.de", extra=folder.parent) == ["model.depth="]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model=m", ["mlp"]),
        ("experiment=c", ["cifar_resnet"]),
        ("+sweeps=", ["seeds"]),
        ("tracking.wandb.mode=", ["auto", "online", "offline", "disabled"]),
        ("tracking.wandb.mode=of", ["offline"]),
        ("loader.resident=", ["auto", "true", "false"]),
        ("trainer.patience=", ["auto", "null"]),
        ("++trainer.max_steps=", ["null"]),
        ("trainer.precision=", ["auto", "fp32", "bf16"]),
        ("model.num_classes=", ["auto"]),
        ("lr=", ["auto"]),
        ("name=", ["null"]),
        ("seed=", []),
        ("no.such=", []),
        ("nosuch=", []),
    ],
)
def test_values_are_options_and_what_a_type_names(project: Path, word: str, expected: list[str]) -> None:
    before = word.partition("=")[0]
    assert texts(word) == [f"{before}={value}" for value in expected]


def test_after_a_comma_comes_a_value_that_is_not_there_yet(project: Path) -> None:
    assert texts("optimizer=sgd,s") == ["optimizer=sgd,sparse_adam"]
    assert texts("tracking.wandb.mode=online,auto,o") == ["tracking.wandb.mode=online,auto,offline"]


def test_a_path_is_left_to_the_shell(project: Path) -> None:
    assert texts("dataset.path=da", "dataset=csv") == [FILES]


def test_what_is_given_is_not_offered_again_under_any_name(project: Path) -> None:
    assert texts("optimizer.l") == ["optimizer.lr="]
    for given in ("optimizer.lr=1", "++optimizer.lr=1", "lr=1"):
        assert texts("optimizer.l", given) == []
        assert texts("lr", given) == []
    assert texts("mod", "model=resnet") == ["model."]
    assert texts("+sw", "+sweeps=seeds") == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("+model", ["+model."]),
        ("+model.h", ["+model.hidden="]),
        ("++model.h", ["++model.hidden="]),
        ("++s", ["++scheduler.", "++seed="]),
        ("~model", ["~model", "~model."]),
        ("~model.h", ["~model.hidden"]),
    ],
)
def test_keys_are_offered_after_hydras_signs(project: Path, word: str, expected: list[str]) -> None:
    assert texts(word) == expected


def test_a_group_outside_of_the_defaults_list_is_offered_with_a_plus(project: Path) -> None:
    (project / "conf" / "extra").mkdir()
    (project / "conf" / "extra" / "some.yaml").write_text("depth: 1\n")
    assert texts("ext") == []
    assert texts("+ext") == ["+extra="]
    assert texts("+extra=") == ["+extra=some"]
    assert texts("extra.", "+extra=some") == ["extra.depth="]


def test_a_key_alone_is_a_group_a_part_of_one_or_a_setting(project: Path) -> None:
    assert list(complete_key("s", SoFar())) == ["scheduler", "scheduler.", "seed"]
    assert list(complete_key("model.d", SoFar(["model=resnet"]))) == ["model.depth", "model.dropout"]


@pytest.mark.parametrize(
    "text",
    ["defaults: [", "- a list", "defaults: 5", "defaults: [config]", "x: &a [*a]\n\0", "defaults: [[1]]"],
)
def test_a_broken_config_counts_as_saying_nothing(project: Path, text: str) -> None:
    (project / "conf" / "config.yaml").write_text(text)
    assert texts("model.h") == ["model.hidden="]
    assert texts("mod") == ["model=", "model."]


def test_a_broken_experiment_and_config_file_count_as_saying_nothing(project: Path) -> None:
    (project / "conf" / "experiment").mkdir()
    (project / "conf" / "experiment" / "bad.yaml").write_bytes(b"\xff: [")
    assert texts("model.h", "experiment=bad", config=project / "conf" / "experiment" / "bad.yaml") == [
        "model.hidden="
    ]


def test_an_option_that_is_not_text_hides_no_other(project: Path) -> None:
    (project / "conf" / "model" / "bad.yaml").write_bytes(b"\xff")
    assert texts("model=") == ["model=bad", "model=convnet", "model=mlp", "model=resnet"]

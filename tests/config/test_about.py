"""Keys about a component, which any optimizer or scheduler may have: checked, shown, and part of what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootflow.config.canonical import identity
from rootflow.config.compose import open_composer
from rootflow.config.explain import explain
from rootflow.config.schema import schema_of
from rootflow.config.show import commented_yaml, keys_of
from rootflow.config.typed import from_dict, to_dict
from rootflow.errors import ConfigError
from tests.config.conftest import Compose


def test_a_config_has_them_only_if_they_are_given(compose: Compose) -> None:
    assert {"interval", "warmup"}.isdisjoint(compose("scheduler=step_lr").scheduler)
    assert "groups" not in compose().optimizer
    given = compose("scheduler=step_lr", "scheduler.interval=step", "scheduler.warmup=1 epochs").scheduler
    assert (given["interval"], given["warmup"]) == ("step", "1 epoch")


def test_groups_are_complete_and_in_the_declared_types(compose: Compose) -> None:
    config = compose("optimizer.groups={backbone.*: {lr_scale: 1}, head.*: {unfreeze_at: 2 epochs}}")
    assert config.optimizer["groups"] == {
        "backbone.*": {
            "lr_scale": 1.0, "weight_decay": None, "frozen": False, "unfreeze_at": None, "freeze_at": None
        },
        "head.*": {
            "lr_scale": 1.0, "weight_decay": None, "frozen": False, "unfreeze_at": 2, "freeze_at": None
        },
    }  # fmt: skip


def test_groups_of_a_file_are_taken_too(compose: Compose, project: Path) -> None:
    folder = project / "conf" / "optimizer"
    folder.mkdir()
    (folder / "mine.yaml").write_text('name: SGD\nlr: 0.1\ngroups:\n  "backbone.*": {lr_scale: 0.1}\n')
    assert compose("optimizer=mine").optimizer["groups"]["backbone.*"]["lr_scale"] == 0.1
    (folder / "mine.yaml").write_text('name: SGD\nlr: 0.1\ngroups:\n  "backbone.*":\n    lr_scal: 0.1\n')
    with pytest.raises(ConfigError, match=r"optimizer\.groups\.backbone\.\*\.lr_scal does not exist"):
        compose("optimizer=mine")


FIELDS = "lr_scale, weight_decay, frozen, unfreeze_at, freeze_at"
INTERVALS = "'step' or 'epoch' or 'evaluation' or 'auto'"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["scheduler=step_lr", "scheduler.interval=setp"],
            f"scheduler.interval is 'setp' (command line); it must be {INTERVALS}. Did you mean 'step'?",
        ),
        (
            ["scheduler.interval=setp"],
            f"scheduler.interval is 'setp' (command line); it must be {INTERVALS}. Did you mean 'step'?",
        ),
        (
            ["scheduler=step_lr", "scheduler.warmup=0.05"],
            "scheduler.warmup is 0.05 (command line); it must be a duration like '500 steps', '2 epochs' or '5%' "
            "or null.",
        ),
        (
            ["optimizer.groups={head.*: {lr_scal: 0.1}}"],
            f"optimizer.groups.head.*.lr_scal does not exist (command line). Did you mean 'lr_scale'? "
            f"optimizer.groups.head.* takes {FIELDS}.",
        ),
        (
            ["optimizer.groups={head.*: {lr_scale: -1}}"],
            "optimizer.groups.head.*.lr_scale is -1 (command line); it must be a number above 0.",
        ),
        (
            ["optimizer.groups={head.*: 0.1}"],
            f"optimizer.groups is {{'head.*': 0.1}} (command line); it must be a mapping of mappings with {FIELDS}.",
        ),
        (
            ["optimizer.groups=[head]"],
            "optimizer.groups is ['head'] (command line); it must be a mapping.",
        ),
        (
            ["scheduler=cosine", "scheduler.also.weight_decay={shape: cosin}"],
            "scheduler.also.weight_decay.shape is 'cosin' (command line); it must be 'constant' or 'linear' or "
            "'cosine' or 'one_minus_sqrt'. Did you mean 'cosine'?",
        ),
        (
            ["scheduler=cosine", "scheduler.also.weight_decay={end: 0.1}"],
            "scheduler.also.weight_decay.end does not exist (command line). scheduler.also.weight_decay takes "
            "shape, initial, final.",
        ),
    ],
)
def test_a_mistake_in_them_is_told(compose: Compose, overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(*overrides)
    assert str(caught.value) == told


def test_a_key_that_is_near_one_is_told_so(compose: Compose) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.group does not exist .*Did you mean 'groups'\?"):
        compose("optimizer.group={}")
    with pytest.raises(ConfigError, match=r"scheduler\.intervall does not exist .*Did you mean 'interval'\?"):
        compose("scheduler=step_lr", "scheduler.intervall=step")


def test_members_have_none(compose: Compose) -> None:
    with pytest.raises(ConfigError, match=r"scheduler\.schedulers\.0\.interval does not exist"):
        compose("scheduler=chained_scheduler", "scheduler.schedulers=[{name: LinearLR, interval: step}]")


def test_a_key_of_the_component_itself_is_its_own(project: Path, compose: Compose) -> None:
    (project / "schedulers").mkdir()
    (project / "schedulers" / "mine.py").write_text(
        "from rootflow import register\n\n@register\ndef mine(optimizer, interval: int = 3): ...\n"
    )
    assert compose("scheduler=mine", "scheduler.interval=5").scheduler == {"name": "mine", "interval": 5}
    schema = schema_of("scheduler", {"name": "warmup_decay"})
    assert schema is not None
    assert [p.name for p in schema.about] == ["interval"]


def test_they_are_listed_and_explained(project: Path) -> None:
    rows = {row["key"]: row for row in keys_of("scheduler", "step_lr")}
    assert rows["scheduler.interval"]["value"] == "auto"
    assert rows["scheduler.warmup"]["about"].startswith("how long the learning rate rises from 0")
    assert {row["key"]: row["value"] for row in keys_of("optimizer", "sgd")}["optimizer.groups"] == {}
    overrides = ["scheduler=step_lr", "scheduler.interval=step"]
    with open_composer() as composer:
        config = composer.compose(overrides)
        (found,) = explain(config, composer.origins(overrides), "scheduler.interval")
    assert (found.value, found.takes) == ("step", INTERVALS)
    assert [setting.value for setting in found.chain] == ["auto", "step"]
    assert "interval: step  # what it counts" in commented_yaml(config)


def test_the_typed_form_keeps_them(compose: Compose) -> None:
    config = compose(
        "scheduler=step_lr",
        "scheduler.interval=step",
        "optimizer=sgd",
        "optimizer.groups={head.*: {frozen: true}}",
    ).to_dict()
    typed = from_dict(config)
    said = to_dict(typed)
    assert (said["scheduler"], said["optimizer"]) == (config["scheduler"], config["optimizer"])
    assert from_dict(said) == typed


def test_of_two_experiments_they_make_two_unless_they_say_what_is_anyway(compose: Compose) -> None:
    def of(*overrides: str) -> str:
        return identity(compose("scheduler=step_lr", *overrides))

    assert of("scheduler.interval=auto", "scheduler.warmup=null", "optimizer.groups={}") == of()
    assert len({of(), of("scheduler.interval=step"), of("scheduler.warmup=1 epoch")}) == 3
    groups = compose("optimizer.groups={a.*: {frozen: true}}").to_dict()
    short = {**groups, "optimizer": {**groups["optimizer"], "groups": {"a.*": {"frozen": True}}}}
    assert identity(short) == identity(groups)

"""What is given in any of the ways of a command line arrives with its type and its text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rootflow.config.overrides import (
    SWEEP_FILE,
    check_readable,
    quoted,
    read_overrides,
    split_arguments,
    sweep_parameters,
)
from rootflow.errors import ConfigError
from tests.config.conftest import Compose

NUMBERS = st.integers() | st.floats()
TEXTS = st.text(max_size=12) | st.text(alphabet="\\${}[]()\"'=,: \t\nab1.e", max_size=12)
KEYS = st.from_regex(r"[a-z*/][\w.$*/-]{0,4}", fullmatch=True).filter(
    lambda key: key.isascii() and key.lower() not in ("nan", "inf", "true", "false", "null")
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
PARSER = OverridesParser.create()


def parse(override: str) -> Override:
    return PARSER.parse_override(override)


def resolved(override: Override) -> Any:
    """What OmegaConf makes of the value."""
    cfg = OmegaConf.create({"x": None})
    OmegaConf.update(cfg, "x", override.value())
    return OmegaConf.to_container(cfg, resolve=True)["x"]  # type: ignore[call-overload,index]


def agent(path: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The environment of W&B's agent, after it wrote its file as it does."""
    entries = {key: {"value": value} for key, value in parameters.items()}
    path.write_text("wandb_version: 1\n\n" + yaml.safe_dump(entries, sort_keys=False, allow_unicode=True))
    return {SWEEP_FILE: str(path)}


# repr tells 1 from 1.0 and True, and makes nan equal to itself


@settings(max_examples=500, deadline=None)
@given(VALUES)
def test_every_value_arrives_with_its_type_and_its_text(value: Any) -> None:
    override = parse(f"x={quoted(value)}")
    assert not override.is_sweep_override()
    assert repr(resolved(override)) == repr(value)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_a_value_stays_what_it_is_when_hydra_writes_it_anew_for_a_job_of_m(value: Any) -> None:
    once = parse(f"x={quoted(value)}")
    again = parse(f"x={once.get_value_element_as_str()}")
    assert repr(again.value()) == repr(once.value())


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (1e-05, "1e-05"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        ("resnet", "resnet"),
        ("1e3", '"1e3"'),
        ("True", '"True"'),
        ("null", '"null"'),
        ("nan", '"nan"'),
        ("", '""'),
        ("a,b", '"a,b"'),
        ("a\nb", '"a\nb"'),
        ('say "x"\\', r'"say \"x\"\\"'),
        ("${seed}", r'"\${seed}"'),
        ((1, [2.0, "x y"]), '[1,[2.0,"x y"]]'),
        ({"lr": 0.1, "*.bias": None}, "{lr:0.1,*.bias:null}"),
    ],
)
def test_values_are_written_plainly(value: object, written: str) -> None:
    assert quoted(value) == written


@pytest.mark.parametrize("key", ["", "1", "1e3", "-.5", "True", "null", "inf", "a b", "a:b", "é", 3, None])
def test_a_key_that_the_grammar_has_no_text_for_is_an_error_that_names_it(key: object) -> None:
    with pytest.raises(ConfigError) as told:
        quoted({"a": [{key: 1}]})
    assert str(told.value) == f"the key {key!r} can't be written in Hydra's grammar: it must be a name."


def test_text_with_a_dollar_brace_reaches_the_config_as_it_is(compose: Compose) -> None:
    for text in ("${seed}", r"\${seed}", r"a\\${", "$${x} ${", 'q"${a}\\'):
        assert compose(f"name={quoted(text)}").name == text


def test_hyphens_as_wandb_writes_them_change_nothing() -> None:
    argv = ["--optimizer.lr=0.1", "--model=resnet", "--data/set=a=b", "x=--y=1", "--model@a.b=c"]
    expected = ["optimizer.lr=0.1", "model=resnet", "data/set=a=b", "x=--y=1", "model@a.b=c"]
    assert split_arguments(argv, ()) == expected


def test_what_the_verb_itself_takes_and_what_has_no_equals_sign_stay_as_they_are() -> None:
    flags = ("-m", "--multirun", "--config", "--package", "-cd", "--config-dir")
    argv = [
        "-m",
        "--config=a.yaml",
        "--package=x",
        "--config-dir=y",
        "--lr",
        "0.1",
        "--=3",
        "---x=1",
        "--",
        "--a=1",
    ]
    assert split_arguments(argv, flags) == argv


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr=0.1", "optimizer.lr=0.1"),
        ("+lr=0.1", "+optimizer.lr=0.1"),
        ("++batch_size=auto", "++trainer.batch_size=auto"),
        ("~epochs", "~trainer.max_epochs"),
        ("steps=10,20", "trainer.max_steps=10,20"),
        ("model.lr=1", "model.lr=1"),
        ("name=lr=0.1", "name=lr=0.1"),
        ("lrs=1", "lrs=1"),
        ("=", "="),
        ("", ""),
    ],
)
def test_a_short_name_is_the_same_as_the_key(typed: str, meant: str) -> None:
    assert read_overrides([typed], environ={}) == [meant]


def test_a_key_may_be_typed_again_but_not_by_its_other_name() -> None:
    assert read_overrides(["lr=1", "lr=2"], environ={}) == ["optimizer.lr=1", "optimizer.lr=2"]
    with pytest.raises(ConfigError) as told:
        read_overrides(["optimizer.lr=1", "seed=1", "++lr=2"], environ={})
    assert str(told.value) == (
        "optimizer.lr is given as optimizer.lr (command line) and as lr (command line); leave one out."
    )


JSON = {
    "model": "resnet",
    "lr": 1e-05,
    "name": "a,b(c)",
    "seed": 3,
    "trainer": {"max_steps": None, "deterministic": True, "precision": "1e3"},
    "model.hidden": [64, "${x}", {"a": {}}],
    "tracking": {"wandb": {"tags": [], "mode": "offline"}, "odd": {"1x": 1}, "empty": {}},
}
FROM_JSON = [
    "model=resnet",
    "optimizer.lr=1e-05",
    'name="a,b(c)"',
    "seed=3",
    "trainer.max_steps=null",
    "trainer.deterministic=true",
    'trainer.precision="1e3"',
    'model.hidden=[64,"\\${x}",{a:{}}]',
    "tracking.wandb.tags=[]",
    "tracking.wandb.mode=offline",
    "tracking.odd={1x:1}",
    "tracking.empty={}",
]


def test_json_gives_exact_types_to_dotted_keys_and_to_nested_ones(tmp_path: Path) -> None:
    text = json.dumps(JSON, indent=1)
    assert read_overrides(["task=auto"], json=text, environ={}) == ["task=auto", *FROM_JSON]
    (tmp_path / "given.json").write_text(text)
    assert read_overrides([], json=str(tmp_path / "given.json"), environ={}) == FROM_JSON


def test_json_reaches_the_config(compose: Compose) -> None:
    given = {"model": "resnet", "model.depth": 18, "lr": 1e-05, "trainer": {"max_steps": 2}, "name": "a,b(c)"}
    config = compose(*read_overrides([], json=json.dumps(given), environ={}))
    assert (config.model["name"], config.model["depth"], config.optimizer["lr"]) == ("resnet", 18, 1e-05)
    assert (config.trainer["max_steps"], config.name) == (2, "a,b(c)")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1,\n "b" 2}', "--overrides-json: line 2, column 6 is not JSON: Expecting ':' delimiter."),
        (
            '{"a": {"": 1}}',
            "--overrides-json: the key '' can't be written in Hydra's grammar: it must be a name.",
        ),
        ('{"": 1}', "--overrides-json: the key '' is no setting; it must be like `seed` or `optimizer.lr`."),
        (
            '{"+lr": 1}',
            "--overrides-json: the key '+lr' is no setting; it must be like `seed` or `optimizer.lr`.",
        ),
        (
            '{"a=b": 1}',
            "--overrides-json: the key 'a=b' is no setting; it must be like `seed` or `optimizer.lr`.",
        ),
        ('{"a": 1, "a": 2}', "--overrides-json: the key 'a' is given twice; leave one out."),
        (
            '{"lr": 1, "optimizer": {"lr": 2}}',
            "optimizer.lr is given as lr (--overrides-json) and as optimizer.lr (--overrides-json); leave one out.",
        ),
        (
            "nowhere.json",
            "--overrides-json 'nowhere.json' is no JSON object, nor a file that can be read; "
            'give {"optimizer.lr": 0.1} or such a file.',
        ),
        ('{"a":' * 9_000 + "1" + "}" * 9_000, "--overrides-json: is nested too deeply to be read."),
    ],
)
def test_json_that_is_no_set_of_settings_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_overrides([], json=text, environ={})
    assert str(error.value) == told


def test_a_file_that_holds_no_json_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"given\.json: holds no JSON object; it must be like \{"):
        read_overrides([], json=str(path), environ={})
    path.write_bytes(b"\xff{}")
    with pytest.raises(ConfigError, match=r"given\.json' is no JSON object, nor a file that can be read"):
        read_overrides([], json=str(path), environ={})
    path.write_text('{"a": ' + "1" * 5_000 + "}")
    with pytest.raises(ConfigError, match=r"given\.json: Exceeds the limit"):
        read_overrides([], json=str(path), environ={})


@pytest.mark.parametrize(
    ("typed", "text", "told"),
    [
        (
            "++lr=1",
            '{"optimizer": {"lr": 2}}',
            "optimizer.lr is given as lr (command line) and as optimizer.lr",
        ),
        ("optimizer={lr:1}", '{"lr": 2}', "optimizer.lr is given as optimizer (command line) and as lr"),
        ("tracking.wandb.mode=offline", '{"tracking.wandb": null}', "tracking.wandb.mode is given as"),
        ("model=mlp", '{"model": "resnet"}', "model is given as model (command line) and as model"),
        ("~seed", '{"seed": 2}', "seed is given as seed (command line) and as seed"),
    ],
)
def test_the_command_line_and_json_may_not_give_the_same_key(typed: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_overrides(["task=auto", typed], json=text, environ={})
    assert str(error.value).startswith(told)
    assert str(error.value).endswith("(--overrides-json); leave one out.")


def test_an_option_and_a_key_of_it_are_not_the_same() -> None:
    given = read_overrides(["model=resnet"], json='{"model.depth": 18}', environ={})
    assert given == ["model=resnet", "model.depth=18"]


PARAMETERS: dict[str, Any] = {
    "model": "resnet",
    "optimizer.lr": 1e-05,
    "model.dropout": None,
    "name": "a,b(c) = 1e3",
    "optimizer": {"betas": [0.9, 0.99], "amsgrad": True},
    "steps": 2,
}
TYPED = [
    "model=resnet",
    "optimizer.lr=1e-05",
    "model.dropout=null",
    'name="a,b(c) = 1e3"',
    "optimizer.betas=[0.9,0.99]",
    "optimizer.amsgrad=true",
    "trainer.max_steps=2",
]


@pytest.mark.parametrize("prefix", ["", "--", "+", "++"])
def test_the_agents_own_texts_of_its_parameters_never_win(tmp_path: Path, prefix: str) -> None:
    environ = agent(tmp_path / "config.yaml", PARAMETERS)
    argv = [f"{prefix}{key}={value}" for key, value in PARAMETERS.items()]
    given = split_arguments(["optimizer=adamw", *argv, "seed=3"], ())
    assert read_overrides(given, environ=environ) == ["optimizer=adamw", "seed=3", *TYPED]


def test_the_agents_json_and_its_file_are_the_same_parameters(tmp_path: Path) -> None:
    environ = agent(tmp_path / "config.yaml", PARAMETERS)
    text = json.dumps({**PARAMETERS, "seed": 3})
    assert read_overrides([], json=text, environ=environ) == ["seed=3", *TYPED]


def test_the_parameters_arrive_also_where_the_sweeps_command_has_no_arguments(tmp_path: Path) -> None:
    assert read_overrides([], environ=agent(tmp_path / "config.yaml", PARAMETERS)) == TYPED


def test_a_parameter_takes_the_place_of_the_same_key_by_any_name(tmp_path: Path) -> None:
    environ = agent(tmp_path / "config.yaml", {"lr": 0.5, "trainer.max_steps": 7})
    assert read_overrides(["optimizer.lr=0.1", "steps=3"], environ=environ) == [
        "optimizer.lr=0.5",
        "trainer.max_steps=7",
    ]


def test_a_run_started_again_after_a_preemption_gets_the_sweeps_parameters_only(tmp_path: Path) -> None:
    recorded = {
        "_wandb": {"t": {"1": [1, 2]}},
        "trainer": {"name": "trainer", "max_steps": 100, "hook": {"_target_": "x"}},
        "model": "resnet",
        "optimizer": {"lr": 0.5},
        "seed": 0,
        "trainer.max_steps": 2,
    }
    environ = agent(tmp_path / "config.yaml", recorded)
    expected = ["model=resnet", "optimizer.lr=0.5", "seed=0", "trainer.max_steps=2"]
    argv = [f"{key}={value}" for key, value in recorded.items()]
    assert read_overrides(["task=auto", *argv], environ=environ) == ["task=auto", *expected]
    assert read_overrides([], json=json.dumps(recorded), environ=environ) == expected
    assert sweep_parameters(environ) == {k: v for k, v in recorded.items() if k not in ("_wandb", "trainer")}


def test_a_component_that_a_sweep_sets_as_a_whole_is_kept(tmp_path: Path) -> None:
    environ = agent(tmp_path / "config.yaml", {"model": {"name": "resnet", "depth": 18}})
    assert read_overrides([], environ=environ) == ["model.name=resnet", "model.depth=18"]


def test_without_an_agent_there_are_no_parameters() -> None:
    assert sweep_parameters({}) is None
    assert sweep_parameters({SWEEP_FILE: ""}) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, r"config\.yaml can't be read: No such file or directory\. WANDB_SWEEP_PARAM_PATH names it"),
        ("a: [", r"config\.yaml is broken: while parsing .* WANDB_SWEEP_PARAM_PATH names it"),
        ("[1]", r"config\.yaml is no mapping of parameters\. WANDB_SWEEP_PARAM_PATH names it"),
        ("", r"config\.yaml is no mapping of parameters\."),
        ("lr: {desc: x}", r"config\.yaml: lr has no `value`\. WANDB_SWEEP_PARAM_PATH names it"),
        ("x y: {value: 1}", r"config\.yaml: the key 'x y' is no setting; it must be like"),
        ("1: {value: 1}", r"config\.yaml: the key 1 is no setting; it must be like"),
        ("seed: {value: 2020-01-01}", r"config\.yaml: datetime.date\(2020, 1, 1\) must be text, a number"),
        (
            "lr: {value: 1}\noptimizer.lr: {value: 2}",
            r"optimizer\.lr is given as lr \(.*config\.yaml\) and as",
        ),
    ],
)
def test_a_missing_or_broken_file_of_the_agent_is_named(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_overrides(["seed=1"], environ={SWEEP_FILE: str(path)})


def test_an_agents_file_without_parameters_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("wandb_version: 1")
    assert read_overrides(["seed=1"], environ={SWEEP_FILE: str(tmp_path / "config.yaml")}) == ["seed=1"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("a=" + "x" * 10_000, "is 10002 characters long; at most 10000 can be read"),
        ("a=[" + "1," * 2_001 + "1]", "has 2001 parts; at most 2000 can be read"),
        ("a=" + "[(" * 20 + ")]" * 20, "has 40 levels; at most 20 can be read"),
        ("a" + ".a" * 30 + "=1", "has 30 levels; at most 20 can be read"),
        ("a" * 201 + "=1", "has 201 characters of key; at most 200 can be read"),
        ("a=" + "1" * 4_000, "has a number of 4000 digits or more; write text in quotes"),
    ],
)
def test_what_hydra_would_take_long_to_read_is_refused(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_readable(override)
    assert str(error.value) == f"{override[:40] + '...'!r} (command line) {told}."


@pytest.mark.parametrize("text", ["\0", "\ud800"])
def test_what_no_file_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_readable(f"name={quoted(text)}")
    assert str(
        error.value
    ) == f"'name=\"{text}\"' (command line) has a character that no text file can hold.".replace(
        text, repr(text)[1:-1]
    )


def test_long_text_in_quotes_is_readable() -> None:
    check_readable("name=" + quoted("[" * 2_000 + "," * 2_001 + '"' * 500 + "\\" * 501))
    check_readable("dataset.path=/a/b/c.d/e")

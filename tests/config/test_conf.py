"""Every YAML that ships: it composes, says what it is, and every key of it has a comment."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rootflow.config.compose import open_composer
from rootflow.config.folders import shipped_folder
from rootflow.config.show import keys_of, options_of
from rootflow.registry import GROUPS, components
from tests.config.conftest import Compose

FILES = sorted(shipped_folder("conf").glob("*/*.yaml"))
REQUIRED = {
    ("dataset", "csv"): ["dataset.path=t.csv", "dataset.target=y"],
    ("dataset", "folder"): ["dataset.path=images"],
    ("dataset", "tensors"): ["dataset.path=t.npz"],
    ("scheduler", "cosine_annealing_lr"): ["trainer.max_epochs=9"],  # they end when the training does
    ("scheduler", "one_cycle_lr"): ["trainer.max_epochs=9"],
    ("scheduler", "polynomial_lr"): ["trainer.max_epochs=9"],
    ("scheduler", "step_lr"): ["scheduler.step_size=3"],
    ("scheduler", "multi_step_lr"): ["scheduler.milestones=[]"],
    ("scheduler", "exponential_lr"): ["scheduler.gamma=0.9"],
    ("scheduler", "cosine_annealing_warm_restarts"): ["scheduler.T_0=3"],
    ("scheduler", "lambda_lr"): ["scheduler.lr_lambda={_target_: math.exp, _partial_: true}"],
    ("scheduler", "multiplicative_lr"): ["scheduler.lr_lambda={_target_: math.exp, _partial_: true}"],
    ("scheduler", "sequential_lr"): ["scheduler.schedulers=[{name: ConstantLR}]", "scheduler.milestones=[]"],
    ("scheduler", "chained_scheduler"): ["scheduler.schedulers=[{name: ConstantLR}]"],
}
"""What an option can't know: the user must give it."""


def test_the_shipped_options_are_all_looked_at() -> None:
    assert len(FILES) == 60
    assert {path.parent.name for path in FILES} == {*GROUPS, "experiment"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}={p.stem}")
def test_every_option_composes(compose: Compose, path: Path) -> None:
    group, option = path.parent.name, path.stem
    config = compose(f"{group}={option}", *REQUIRED.get((group, option), []))
    if group != "experiment":
        assert getattr(config, group)["name"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}={p.stem}")
def test_every_option_says_what_it_is_and_what_each_of_its_keys_means(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    about = [line for line in lines if line.startswith("# ") and not line.startswith("# @")]
    assert about, "no first line that says what the option is"
    for line in lines:
        content, _, comment = line.partition("  # ")
        if content.strip() and not line.lstrip().startswith("#") and not content.rstrip().endswith(":"):
            assert comment, f"no comment: {line}"


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.parent.name in GROUPS], ids=lambda p: f"{p.parent.name}={p.stem}"
)
def test_no_option_repeats_a_default_of_its_component(path: Path, project: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    bare = project / "conf" / path.parent.name
    bare.mkdir(exist_ok=True)
    if "name" not in content or content["name"] == "auto":
        return
    (bare / "bare.yaml").write_text(f"name: {content['name']}\n")
    defaults = {row["key"].partition(".")[2]: row["value"] for row in keys_of(path.parent.name, "bare")}
    repeated = [
        key
        for key, value in content.items()
        if key != "name" and value != "auto" and defaults.get(key, "?") == value
    ]
    assert not repeated


UNDER_ANOTHER_NAME = {"Muon", "ChainedScheduler"}
"""Classes of torch that `muon` and `chained` build, which take any model and any list."""


def test_every_registered_component_has_an_option(project: Path) -> None:
    for group in GROUPS:
        names = {
            yaml.safe_load(p.read_text()).get("name") for p in shipped_folder("conf").glob(f"{group}/*.yaml")
        }
        assert set(components(group)) - UNDER_ANOTHER_NAME <= names, group


def test_every_key_of_a_component_of_ours_has_a_meaning() -> None:
    for group in ("model", "dataset", "task", "trainer", "loader", "discover", "tracking"):
        for option in options_of(group):
            for row in keys_of(group, option["option"]):
                if not row["key"].endswith(".name"):
                    assert row["about"], row["key"]


def test_every_sweep_says_its_question_and_composes(project: Path) -> None:
    sweeps = sorted(shipped_folder("sweeps").glob("*.yaml"))
    assert sweeps
    for path in sweeps:
        first = next(line for line in path.read_text().splitlines() if not line.startswith("# @"))
        assert first.startswith("# ")
        assert "?" in first
        with open_composer() as composer:
            assert len(composer.compose_jobs([f"+sweeps={path.stem}"])) > 1

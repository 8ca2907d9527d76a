from __future__ import annotations

from typing import Any

import pytest

from rootflow.errors import ConfigError
from rootflow.runs.resume_rules import (
    RULES,
    asked_config,
    data_differences,
    environment_reasons,
    find_limit,
    judge,
    patch_without,
    with_found,
)

CONFIG: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [8, 4]},
    "dataset": {"name": "folder", "path": "a", "split": {"seed": 0}, "augment": None},
    "task": {"name": "classification", "num_classes": 3},
    "optimizer": {"name": "AdamW", "lr": 0.1, "weight_decay": 0.0},
    "scheduler": {"name": "warmup_decay", "warmup": "5%"},
    "trainer": {"name": "trainer", "max_epochs": 3, "batch_size": 8, "device": "cpu", "num_threads": 1},
    "loader": {"num_workers": 0},
    "discover": {"max_batch_size": 8},
    "tracking": {"wandb": {"tags": []}},
    "seed": 0,
    "name": None,
    "init_from": None,
}


def changed(key: str, value: Any) -> dict[str, Any]:
    group, _, rest = key.partition(".")
    if not rest:
        return {**CONFIG, group: value}
    *above, last = rest.split(".")
    node = dict(CONFIG[group])
    inner = node
    for part in above:
        inner[part] = dict(inner[part] or {})
        inner = inner[part]
    inner[last] = value
    return {**CONFIG, group: node}


@pytest.mark.parametrize(
    ("key", "value", "verdict", "is_exact"),
    [
        ("name", "a", "free", True),
        ("tracking.wandb.tags", ["a"], "free", True),
        ("discover.max_batch_size", 4, "free", True),
        ("loader.num_workers", 2, "free", True),
        ("loader.prefetch_factor", 2, "free", True),
        ("trainer.max_epochs", 4, "free", True),
        ("trainer.max_steps", 4, "free", True),
        ("trainer.max_samples", 4, "free", True),
        ("trainer.max_time", 4.0, "free", True),
        ("trainer.patience", 4, "free", True),
        ("trainer.save_every", "1 s", "free", True),
        ("trainer.log_every", 1, "free", False),
        ("trainer.eval_every", "1 steps", "free", False),
        ("trainer.micro_batch_size", 4, "free", False),
        ("trainer.device", "cuda", "ask", False),
        ("trainer.num_threads", 2, "ask", False),
        ("trainer.precision", "bf16", "ask", False),
        ("trainer.deterministic", True, "ask", False),
        ("trainer.ema_decay", 0.9, "ask", False),
        ("trainer.grad_clip_norm", 1.0, "ask", False),
        ("trainer.key_of_the_future", 1.0, "ask", False),
        ("optimizer.lr", 0.2, "ask", False),
        ("optimizer.weight_decay", 0.2, "ask", False),
        ("scheduler.warmup", "6%", "ask", False),
        ("scheduler.name", "constant", "ask", False),
        ("task.num_classes", 4, "ask", False),
        ("dataset.augment", True, "ask", False),
        ("dataset.augment.flip", True, "ask", False),
        ("model.hidden", [8, 8], "refuse", False),
        ("model.name", "resnet", "refuse", False),
        ("dataset.name", "digits", "refuse", False),
        ("dataset.path", "b", "refuse", False),
        ("dataset.split.seed", 1, "refuse", False),
        ("task.name", "regression", "refuse", False),
        ("optimizer.name", "SGD", "refuse", False),
        ("trainer.batch_size", 4, "refuse", False),
        ("trainer.name", "mine", "refuse", False),
        ("seed", 1, "refuse", False),
        ("init_from", "latest", "refuse", False),
        ("a_group_of_the_future.key", 1, "refuse", False),
    ],
)
def test_each_key_may_change_or_must_be_allowed_or_is_refused(
    key: str, value: Any, verdict: str, is_exact: bool
) -> None:
    new = (
        changed(key, value)
        if key.partition(".")[0] in CONFIG
        else {**CONFIG, "a_group_of_the_future": {"key": 1}}
    )
    if verdict == "free":
        judged = judge(CONFIG, new, run="R", allow=())
        assert (not judged.reasons) == is_exact
        assert [*judged.changes] == [key]
        return
    with pytest.raises(ConfigError) as caught:
        judge(CONFIG, new, run="R", allow=())
    told = str(caught.value)
    assert told.startswith(f"{key} was ")
    if verdict == "refuse":
        assert "--allow" not in told
        assert f"rootflow train --config R init_from=R {key}=" in told
        with pytest.raises(ConfigError):
            judge(CONFIG, new, run="R", allow=[key])
    else:
        assert told.endswith(f"--allow {key}")
        for allowed in (key, key.rpartition(".")[0]):
            assert judge(CONFIG, new, run="R", allow=[allowed]).reasons


def test_the_rules_cover_every_key() -> None:
    assert RULES[-1].pattern == "*"
    assert (
        judge(CONFIG, {**CONFIG, "model": {"name": "mlp", "hidden": (8, 4)}}, run="R", allow=()).changes == {}
    )


def test_all_that_is_not_permitted_is_told_at_once() -> None:
    new = {**changed("optimizer.lr", 0.2), "seed": 3}
    with pytest.raises(ConfigError) as caught:
        judge(CONFIG, new, run="R", allow=())
    assert [told.partition(",")[0] for told in caught.value.args] == [
        "seed was 0 and is now 3",
        "optimizer.lr was 0.1 and is now 0.2",
    ]


def test_a_name_that_allows_nothing_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"--allow optimiser\.lr .*Did you mean 'optimizer\.lr'"):
        judge(CONFIG, CONFIG, run="R", allow=["optimiser.lr"])
    judge(CONFIG, CONFIG, run="R", allow=["dataset"])


def test_a_secret_that_is_given_again_is_no_change() -> None:
    old, new = changed("model.key", "[redacted]"), changed("model.key", "hunter2")
    assert judge(old, new, run="R", allow=()).changes == {}


def test_what_was_found_takes_the_place_of_auto() -> None:
    config = {
        **CONFIG,
        "task": {"name": "auto"},
        "trainer": {"batch_size": "auto", "precision": "fp32"},
        "scheduler": {"name": "warmup_decay", "total_steps": "auto"},
    }
    found = {
        "task.name": {"value": "regression"},
        "task.target_mean": {"value": 0.5},
        "task.target_std": {"value": 2.0},
        "trainer.batch_size": {"value": 16},
        "trainer.precision": {"value": "bf16"},
        "scheduler.total_steps": {"value": 100},
    }
    filled = with_found(config, found)
    assert filled["trainer"] == {"batch_size": 16, "precision": "fp32"}
    assert filled["scheduler"]["total_steps"] == "auto"
    assert filled["task"] == {"name": "regression", "target_mean": 0.5, "target_std": 2.0, "loss": "mse"}
    assert config["task"] == {"name": "auto"}


def test_earlier_changes_are_part_of_what_is_asked() -> None:
    summary = {
        "config": {"optimizer": {"lr": "auto"}, "dataset": {"augment": {"flip": True}}},
        "resumes": [
            {"changes": {"optimizer.lr": {"old": 0.1, "new": 0.2}}},
            {
                "changes": {
                    "optimizer.lr": {"old": 0.2, "new": 0.3},
                    "dataset.augment": {"old": None, "new": False},
                }
            },
        ],
    }
    assert asked_config(summary) == {"optimizer": {"lr": 0.3}, "dataset": {"augment": False}}


@pytest.mark.parametrize(
    ("trainer", "limit"),
    [
        ({"max_epochs": 4}, None),
        (
            {"max_epochs": 3},
            "trainer.max_epochs is 3, and 3 epochs are done; raise it, e.g. trainer.max_epochs=6",
        ),
        ({"max_epochs": "auto", "max_steps": None}, None),
        (
            {"max_steps": 24},
            "trainer.max_steps is 24, and 24 updates are done; raise it, e.g. trainer.max_steps=48",
        ),
        (
            {"max_samples": 100},
            "trainer.max_samples is 100, and 192 samples are done; raise it, e.g. trainer.max_samples=200",
        ),
        (
            {"max_time": 7.5},
            "trainer.max_time is 7.5, and 8 seconds are done; raise it, e.g. trainer.max_time=15",
        ),
    ],
)
def test_a_limit_that_is_reached_is_named(trainer: dict[str, Any], limit: str | None) -> None:
    progress = {"step": 24, "epoch": 3, "num_seen": 192, "elapsed_s": 8.0, "phase": "over"}
    assert find_limit(progress, trainer) == limit


def test_time_is_up_where_a_cooldown_ended_a_little_before_it() -> None:
    progress = {"elapsed_s": 59.3, "stop_reason": "max_time; cooled down"}
    told = "trainer.max_time is 60, and 59.3 seconds are done; raise it, e.g. trainer.max_time=120"
    assert find_limit(progress, {"max_time": 60.0}) == told
    assert find_limit(progress, {"max_time": 70.0}, is_time_raised=True) is None
    assert find_limit(progress | {"elapsed_s": 71.0}, {"max_time": 70.0}, is_time_raised=True) is not None
    patient = "no improvement in 3 evaluations; cooled down"
    assert find_limit(progress | {"stop_reason": patient}, {"max_time": 60.0}) is None


def test_an_epoch_that_has_begun_is_not_done() -> None:
    assert find_limit({"epoch": 3, "phase": "training"}, {"max_epochs": 3}) is None
    assert find_limit({"epoch": 3, "phase": "training"}, {"max_epochs": 2}) is not None


def test_other_versions_machines_and_code_are_named_and_unknown_ones_are_not() -> None:
    then = {
        "versions": {"torch": "2.10", "python": "3.11"},
        "hardware": {"cpu": "a", "gpus": []},
        "git": {"commit": "c"},
    }
    now = {
        "versions": {"torch": "2.11", "numpy": "2"},
        "hardware": {"cpu": "a", "gpus": ["H200"]},
        "git": {"commit": "d"},
    }
    patches = {"recorded_patch": "", "present_patch": "x"}
    assert [reason.partition(" was ")[0] for reason in environment_reasons(then, now, **patches)] == [
        "torch",
        "GPUs",
        "git commit",
        "uncommitted code",
    ]
    assert environment_reasons(then, then, recorded_patch="x", present_patch="x") == []


def test_data_may_differ_in_the_last_digits_of_a_mean_only() -> None:
    recorded = {"mean": [0.5, 0.25], "num_train": 10, "input_shape": [1, 8]}
    assert data_differences(recorded, {**recorded, "mean": [0.5, 0.2500000001]}) == []
    (told,) = data_differences(recorded, {**recorded, "mean": [0.5, 0.26]})
    assert told == "mean was [0.5, 0.25] and is now [0.5, 0.26]"
    (told,) = data_differences(recorded, {**recorded, "num_train": 11})
    assert told == "num_train was 10 and is now 11"


def test_a_patch_is_compared_without_the_runs_in_it() -> None:
    code, run = "diff --git a/x.py b/x.py\n+1\n", "diff --git a/runs/manual/a b/runs/manual/a\n+2\n"
    assert (
        patch_without(f"# left out: runs/a\n# left out: b\n{run}{code}{run}", "runs")
        == f"# left out: b\n{code}"
    )

"""The whole path of what is found by measuring: found once, recorded, drawn, pinned, and without a trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rootflow
from rootflow.discover import search
from rootflow.discover.learning_rate import LrReport
from rootflow.experiment import run, run_config
from rootflow.registry import open_project
from rootflow.resuming import resume
from rootflow.tuning import tune
from tests.config.conftest import Compose, compose, project  # noqa: F401  # fixtures

COMMON = (
    "dataset=digits",
    "trainer.max_steps=1100",
    "trainer.device=cpu",
    "trainer.num_threads=1",
    "trainer.precision=fp32",
    "model.dropout=0.2",
    "tracking.wandb.mode=disabled",
)
FOUND = ("optimizer.lr", "trainer.batch_size", "trainer.micro_batch_size")


SCALED = """
import torch
from rootflow import register
from torch import nn


@register
class Scaled(nn.Module):
    def __init__(self, in_features: int, num_classes: int, scale: float = 1.0):
        super().__init__()
        self.linear, self.scale = nn.Linear(in_features, num_classes), scale

    def forward(self, x):
        return self.linear(x.flatten(1)) * self.scale
"""
OWN_DATA = """
import torch
from rootflow import register
from torch import nn


@register
class OwnData(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x)

    def train_dataloader(self):
        data = torch.utils.data.TensorDataset(torch.randn(640, 4), torch.arange(640) % 2)
        return torch.utils.data.DataLoader(data, batch_size=64)
"""


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Let trainings of seconds be searched, too; the names of the searches that were made."""
    made: list[str] = []
    monkeypatch.setattr(search, "_SHORT_OPERATIONS", 0)
    monkeypatch.setenv("ROOTFLOW_CACHE", str(tmp_path / "cache"))
    for name in ("search_lr", "search_batch_size"):
        monkeypatch.setattr(search, name, _counted(getattr(search, name), made))
    num_threads = torch.get_num_threads()
    yield made
    torch.set_num_threads(num_threads)


def _counted(function: Callable[..., Any], made: list[str]) -> Callable[..., Any]:
    def counted(*arguments: Any, **keywords: Any) -> Any:
        made.append(function.__name__)
        return function(*arguments, **keywords)

    return counted


def files_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "metrics.jsonl").read_bytes(), (folder / "checkpoints/last.safetensors").read_bytes()


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_a_run_with_the_values_given_is_the_run_that_found_them_to_the_bit(
    compose: Compose,  # noqa: F811
    searched: list[str],
) -> None:
    finder = run_config(compose(*COMMON)).folder
    assert sorted(searched) == ["search_batch_size", "search_lr"]
    found = record_of(finder)["discovered"]
    given = run_config(compose(*COMMON, *(f"{key}={found[key]['value']}" for key in FOUND))).folder
    assert len(searched) == 2
    assert files_of(given) == files_of(finder)


def test_what_was_found_is_recorded_with_its_curves_and_drawn(
    compose: Compose,  # noqa: F811
    searched: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = run_config(compose(*COMMON)).folder
    record = record_of(folder)
    report = LrReport.from_record(record["measured"]["learning_rate"])
    lr = record["discovered"]["optimizer.lr"]
    assert lr == {"value": report.suggestion, "reason": report.reason}
    assert 110 >= report.num_steps >= 50
    assert report.curve
    assert report.probes
    assert f"optimizer.lr={lr['value']:.4f}" in capsys.readouterr().out
    assert (folder / "plots/learning_rate.png").read_bytes().startswith(b"\x89PNG")
    assert record["config"]["optimizer"]["lr"] == "auto"
    assert (
        report.num_steps
        <= search.lr_budget(search.LrSettings(), num_steps=1100, steps_per_epoch=80, operations=0).max_steps
    )


def test_a_resumed_run_and_one_made_again_search_nothing(
    compose: Compose,  # noqa: F811
    searched: list[str],
) -> None:
    first = run_config(compose(*COMMON)).folder
    before = files_of(first)
    searched.clear()
    again = run(config=first)
    assert not searched
    assert files_of(again.folder) == before
    resumed = resume(first, overrides=["trainer.max_steps=1110"])
    assert not searched
    assert resumed.fit.step == 1110


def test_the_trials_of_a_sweep_search_once_for_each_shape(
    compose: Compose,  # noqa: F811
    searched: list[str],
) -> None:
    values = []
    for overrides in ("seed=0", "seed=1", "optimizer.weight_decay=0.1", "model.dropout=0.3", "seed=2"):
        folder = run_config(compose(*COMMON, "trainer.max_steps=1001", overrides)).folder
        values.append(record_of(folder)["discovered"]["optimizer.lr"])
    assert searched.count("search_lr") == 3  # the first, another decay, another model
    assert values[0]["value"] == values[1]["value"] == values[4]["value"]
    assert "; found " in values[1]["reason"]


def test_what_a_search_depends_on_is_another_search(
    compose: Compose,  # noqa: F811
    project: Path,  # noqa: F811
    searched: list[str],
) -> None:
    (project / "models" / "scaled.py").write_text(SCALED)
    open_project(project)
    found = []
    for overrides in (
        ["model.scale=1"],
        ["model.scale=1000"],
        ["trainer.batch_size=32", "trainer.micro_batch_size=16"],
    ):
        folder = run_config(compose(*COMMON[:-2], COMMON[-1], "model=scaled", *overrides)).folder
        found.append(record_of(folder)["discovered"]["optimizer.lr"]["value"])
    assert searched.count("search_lr") == 3
    assert found[0] != found[1]


def test_without_the_cache_each_run_searches(compose: Compose, searched: list[str], tmp_path: Path) -> None:  # noqa: F811
    for _ in range(2):
        run_config(compose(*COMMON, "discover.cache=false"))
    assert searched.count("search_lr") == 2
    assert not (tmp_path / "cache").exists()


def test_the_learning_rate_found_is_the_peak_of_the_schedule_and_groups_keep_their_ratio(
    compose: Compose,  # noqa: F811
    searched: list[str],
) -> None:
    overrides = (*COMMON, "optimizer.groups={hidden.0.*: {lr_scale: 0.1}}")
    for scheduler in ("default", "one_cycle_lr", "constant"):
        config = compose(*overrides, f"scheduler={scheduler}", "trainer.log_every=1")
        folder = run_config(config).folder
        lr = record_of(folder)["discovered"]["optimizer.lr"]["value"]
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert max(row.get("optim/lr", 0.0) for row in rows) == pytest.approx(lr, rel=0.01)


def test_a_search_without_an_answer_leaves_the_rule_and_says_why(
    compose: Compose,  # noqa: F811
    searched: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    none = LrReport(None, "no suggestion: the loss never fell; 30 updates")
    monkeypatch.setattr(search, "search_lr", lambda *_arguments, **_keywords: none)
    folder = run_config(compose(*COMMON)).folder
    found = record_of(folder)["discovered"]["optimizer.lr"]
    assert found["value"] == 0.003
    assert found["reason"].startswith("rule for AdamW")
    assert found["reason"].endswith("no suggestion: the loss never fell; 30 updates")


@pytest.mark.parametrize("scale", [1, 10])
def test_short_trainings_are_not_searched(compose: Compose, searched: list[str], scale: int) -> None:  # noqa: F811
    folder = run_config(compose(*COMMON, f"trainer.max_steps={90 * scale}")).folder
    assert "search_lr" not in searched
    reason = record_of(folder)["discovered"]["optimizer.lr"]["reason"]
    assert reason.endswith(f"; {9 * scale} updates are too few for a search")
    assert not (folder / "plots").exists()


@pytest.mark.parametrize(
    ("num_steps", "steps_per_epoch", "most"),
    [
        (1_000, None, 100),
        (2_000, None, 200),
        (2_500, 1, 250),
        (10_000, None, 300),
        (1e6, None, 600),
        (None, 84, 168),
    ],
)
def test_a_search_takes_a_small_share_of_the_training(
    num_steps: int | None, steps_per_epoch: int | None, most: int
) -> None:
    settings = search.LrSettings()
    budget = search.lr_budget(settings, num_steps=num_steps, steps_per_epoch=steps_per_epoch, operations=1e12)
    assert (budget.max_steps, budget.reason) == (most, "")


def test_a_training_of_few_operations_is_not_searched() -> None:
    settings = search.LrSettings()
    budget = search.lr_budget(settings, num_steps=10_000, steps_per_epoch=None, operations=1e6)
    assert (budget.max_steps, budget.reason) == (0, "no search for so short a training")
    unknown = search.lr_budget(settings, num_steps=10_000, steps_per_epoch=None, operations=0)
    assert unknown.max_steps == 300


def test_tune_searches_what_train_would_not_and_leaves_no_run(
    compose: Compose,  # noqa: F811
    project: Path,  # noqa: F811
    searched: list[str],
) -> None:
    pins = tune(compose(*COMMON, "trainer.max_steps=50"), plots=project / "pictures")
    assert "search_lr" in searched
    assert pins.found["optimizer.lr"].value == pins.reports["learning_rate"].record()["suggestion"]
    assert (project / "pictures/learning_rate.png").exists()
    assert not (project / "runs").exists()


def test_a_model_that_brings_its_data_has_the_sizes_of_that(
    compose: Compose,  # noqa: F811
    project: Path,  # noqa: F811
    searched: list[str],
) -> None:
    (project / "models" / "owndata.py").write_text(OWN_DATA)
    open_project(project)
    folder = run_config(compose("model=owndata", "trainer.max_epochs=1", *COMMON[:1], COMMON[-1])).folder
    found = record_of(folder)["discovered"]
    assert found["trainer.batch_size"] == {"value": 64, "reason": "of its own data"}
    assert found["trainer.micro_batch_size"]["value"] == 64
    assert "search_batch_size" not in searched


def test_a_run_made_again_with_another_model_or_batch_finds_anew(
    compose: Compose,  # noqa: F811
    searched: list[str],
) -> None:
    first = run_config(compose(*COMMON)).folder
    searched.clear()
    run(config=first, overrides=["seed=1", "trainer.max_steps=10"])
    assert not searched
    other = run(config=first, overrides=["trainer.batch_size=32", "trainer.max_steps=1200"]).folder
    assert searched.count("search_lr") == 1
    assert record_of(other)["discovered"]["trainer.micro_batch_size"]["value"] == 32


def test_a_learning_rate_far_too_high_is_halved_and_recorded(compose: Compose) -> None:  # noqa: F811
    folder = run_config(compose(*COMMON, "optimizer.lr=100", "trainer.max_steps=400")).folder
    adjustments = record_of(folder)["adjustments"]
    assert [adjustment["key"] for adjustment in adjustments] == ["optimizer.lr"] * len(adjustments)
    assert adjustments[0]["new"] == adjustments[0]["old"] / 2


def test_the_searches_are_public() -> None:
    assert rootflow.find_lr.__module__ == "rootflow.discover.learning_rate"
    assert rootflow.find_batch_size.__module__ == "rootflow.discover.batch_size"

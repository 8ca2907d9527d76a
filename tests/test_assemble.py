"""Trainings of no set length, put together from a config."""

from __future__ import annotations

import json

import pytest
import torch

from rootflow.assemble import without_length
from rootflow.discover.found import Found
from rootflow.errors import ConfigError
from rootflow.experiment import RunResult, run_config
from tests.config.conftest import Compose, compose, project  # noqa: F401  # fixtures

ENDLESS = (
    "dataset=digits",
    "trainer.max_epochs=null",
    "trainer.batch_size=256",
    "trainer.device=cpu",
    "tracking.wandb.mode=disabled",
)


@pytest.fixture
def train(compose: Compose):  # noqa: F811
    """Run a training of no set length in this process, whose threads stay as they were."""
    num_threads = torch.get_num_threads()
    yield lambda *overrides: run_config(compose(*ENDLESS, *overrides))
    torch.set_num_threads(num_threads)


def test_a_training_of_no_set_length_ends_by_patience_and_shows_no_total(train, capsys) -> None:
    done: RunResult = train(
        *("scheduler=constant", "scheduler.warmup=2 epochs", "optimizer.lr=1"),
        *("trainer.patience=1", "trainer.log_every=10"),
    )
    assert done.fit.stop_reason == "no improvement in 1 evaluations"
    record = json.loads((done.folder / "run.json").read_text())
    assert record["progress"] == {"step": done.fit.step, "epoch": done.fit.epoch}
    assert record["config"]["scheduler"]["warmup"] == "2 epochs"
    assert record["discovered"]["scheduler.steps_per_epoch"]["value"] == 5
    assert "scheduler.total_steps" not in record["discovered"]
    rows = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    assert next(row["optim/lr"] for row in rows if row["step"] == 10) == pytest.approx(0.95)
    shown = capsys.readouterr().out
    assert "\nepoch 1  train/loss" in shown
    assert "epoch 1/" not in shown


def test_without_a_length_a_scheduler_gets_null_where_it_asks_for_one() -> None:
    node = {"name": "warmup_decay", "total_steps": "auto", "steps_per_epoch": "auto"}
    known = {"steps_per_epoch": Found(5, "updates in an epoch")}
    assert without_length(node, known) == node | {"total_steps": None}


@pytest.mark.parametrize(
    "node",
    [
        {"name": "CosineAnnealingLR", "T_max": "auto"},
        {"name": "OneCycleLR", "total_steps": "auto"},
        {"_target_": "nowhere.Scheduler", "epochs": "auto"},
    ],
)
def test_without_a_length_a_scheduler_that_needs_it_is_refused(node: dict[str, str]) -> None:
    key = list(node)[1]
    with pytest.raises(ConfigError) as caught:
        without_length(node, {})
    assert str(caught.value) == (
        f"scheduler.{key} is 'auto', the length of the training, which is not known. Choose scheduler=default, "
        "or give trainer.max_epochs or trainer.max_steps."
    )

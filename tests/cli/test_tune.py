"""`rootflow tune` as a user runs it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tests.cli.conftest import Rootflow

SHORT = ("discover.lr.max_steps=100",)


def test_what_was_found_is_printed_as_the_command_that_uses_it(rootflow: Rootflow, tmp_path: Path) -> None:
    done = rootflow("tune", *SHORT, "model.dropout=0.1", "--plots", "pictures")
    assert done.returncode == 0, done.stderr
    *settings, command = done.stdout.splitlines()
    found = dict(line.partition("  ")[0].split("=") for line in settings)
    assert command.split()[:4] == ["rootflow", "train", *SHORT, "model.dropout=0.1"]
    assert command.split()[5:] == ["trainer.batch_size=16", "trainer.micro_batch_size=16"]
    assert float(command.split()[4].removeprefix("optimizer.lr=")) > 0
    assert found["trainer.batch_size"] == "16"
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["learning_rate.png"]
    assert not (tmp_path / "runs").exists()


def test_the_command_has_what_was_asked_for_and_can_be_pasted(rootflow: Rootflow) -> None:
    groups = "optimizer.groups={hidden.0.*: {lr_scale: 0.1}}"
    done = rootflow("tune", "batch_size", groups, "trainer.batch_size=64")
    assert done.returncode == 0, done.stderr
    assert shlex.split(done.stdout.splitlines()[-1]) == [
        *("rootflow", "train", groups, "trainer.batch_size=16", "trainer.micro_batch_size=16")
    ]


def test_json_has_the_values_the_reasons_and_the_curves(rootflow: Rootflow) -> None:
    done = rootflow("tune", "lr", *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["discovered"]["optimizer.lr"]["value"] == told["measured"]["learning_rate"]["suggestion"]
    assert len(told["measured"]["learning_rate"]["curve"]) >= 10


def test_only_what_is_named_is_searched(rootflow: Rootflow) -> None:
    done = rootflow("tune", "batch_size", "--json", "optimizer.lr=0.5", "trainer.batch_size=64")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "optimizer.lr" not in told["discovered"]
    assert told["discovered"]["trainer.batch_size"]["value"] == 16
    assert "learning_rate" not in told["measured"]


def test_a_mistake_in_the_config_is_told_as_everywhere(rootflow: Rootflow) -> None:
    done = rootflow("tune", "lr", "model=nothing")
    assert done.returncode == 2
    assert "model" in done.stderr

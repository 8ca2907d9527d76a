"""A trainer of the user's own, named in YAML: rootflow does everything around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rootflow.cli import main
from rootflow.errors import ConfigError
from rootflow.train.own_trainer import fit_by

OWN = """
import torch
from rootflow import register

@register("trainer", "mine")
class Mine:
    def __init__(self, rounds: int = 2, batch_size: int = 128):
        self.rounds = rounds

    def train(self, model, train_loader, val_loader, optimizer, log):
        step = 0
        for _ in range(self.rounds):
            for x, y in train_loader:
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                step += 1
            log({"train/loss": loss, "note": "a round"}, step)
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in val_loader)
        return {"val/right": right, "step": step}
"""


def test_a_trainer_with_only_train_is_named_in_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    threads = torch.get_num_threads()
    code = main(["train", "trainer=mine", "trainer.rounds=3", "scheduler=constant", "optimizer.lr=0.01"])
    torch.set_num_threads(threads)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    (folder,) = (tmp_path / "runs" / "manual").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["stop_reason"]) == ("finished", "the trainer's own end")
    assert record["config"]["trainer"] == {"name": "mine", "rounds": 3, "batch_size": 128}
    assert record["test"]["test/accuracy"] > 0.8
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["note"]) for row in rows] == [(10, "a round"), (20, "a round"), (30, "a round")]
    assert load_file(folder / "checkpoints" / "best.safetensors")


class Asking:
    def fit(self, model: Any, context: Any) -> None:
        self.got = (model, context.device)


def test_what_is_asked_for_by_name_is_given() -> None:
    asking = Asking()
    assert fit_by(asking, {"model": 1, "device": 2}).best == {}
    assert asking.got == (1, 2)


def test_a_trainer_that_asks_for_what_there_is_not_is_told_what_there_is() -> None:
    class Wanting:
        def train(self, modle: Any) -> None: ...

    with pytest.raises(ConfigError, match=r"Wanting\.train asks for 'modle'; there are device, model"):
        fit_by(Wanting(), {"model": 1, "device": 2})
    with pytest.raises(ConfigError, match=r"has neither fit\(\) nor train\(\)"):
        fit_by(object(), {})

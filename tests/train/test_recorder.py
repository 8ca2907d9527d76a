"""What a recorded run writes where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from rootflow.tracking.console import Console
from rootflow.tracking.provenance import Provenance
from rootflow.tracking.run_folder import RunFolder
from rootflow.tracking.settings import WandbSettings
from rootflow.tracking.wandb_mirror import WandbMirror
from rootflow.train import recorder as recorder_module
from rootflow.train.hooks import EvaluationReport
from rootflow.train.loop import StepReport
from rootflow.train.recorder import Recorder


class ListMirror(WandbMirror):
    """Keeps the rows that W&B would get."""

    def __init__(self, folder: Path) -> None:
        super().__init__(WandbSettings(mode="disabled"), folder, say=print)
        self.rows: list[dict[str, float | int | str]] = []

    def log(self, row: Mapping[str, float | int | str]) -> None:
        self.rows.append(dict(row))


@pytest.mark.parametrize(("every_s", "mirrored"), [(1e9, [2, 6]), (0.0, [2, 4, 6, 6])])
def test_wandb_gets_every_evaluation_but_training_rows_only_now_and_then(
    tmp_path, monkeypatch, every_s, mirrored
) -> None:
    monkeypatch.setattr(recorder_module, "_MIRROR_EVERY_S", every_s)
    provenance = Provenance(versions={}, hardware={})
    with RunFolder.create(tmp_path, "run", config={}, config_yaml="", provenance=provenance) as folder:
        mirror = ListMirror(folder.path)
        recorder = Recorder(folder, mirror, Console(live=False), log_every=2)
        for step in range(1, 7):
            recorder.on_batch_end(StepReport(step, 1, torch.tensor(0.5), 32, 0.1))
        recorder.on_post_performance_check(EvaluationReport(6, 1, {"val/loss": 0.4}, "val/loss", True, 1.0))
        rows = [json.loads(line) for line in folder.metrics_jsonl.read_text().splitlines()]

    assert [row["step"] for row in rows] == [2, 4, 6, 6]
    assert [row["step"] for row in mirror.rows] == mirrored
    assert mirror.rows[-1] == {"step": 6, "epoch": 1, "val/loss": 0.4}
    assert mirror.rows[0].keys() == {"step", "epoch", "train/loss_step", "optim/lr", "perf/samples_per_s"}

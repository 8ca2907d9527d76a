"""A disk that is full for a while costs checkpoints, not the training."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rootflow.checkpoint import Checkpoints
from rootflow.errors import CheckpointError
from rootflow.train.trainer import FitResult, Trainer


class SometimesFull(Checkpoints):
    """Has no space left for the saves of these numbers, from 1."""

    def __init__(self, folder: Path, failing: set[int]) -> None:
        super().__init__(folder)
        self.failing = failing
        self.number = 0

    def save(self, step: int, state: Mapping[str, Any], *, label: str | None = None) -> Path:
        self.number += 1
        if self.number in self.failing:
            raise CheckpointError(f"No space left: {errno.ENOSPC}.")
        return super().save(step, state, label=label)


def train(checkpoints: Checkpoints) -> FitResult:
    torch.manual_seed(0)
    inputs = torch.randn(40, 4)
    data = TensorDataset(inputs, (inputs[:, 0] > 0).long())
    trainer = Trainer(max_epochs=2, batch_size=8, save_every="1 steps", device="cpu", precision="fp32")
    return trainer.fit(nn.Linear(4, 2), data, loss="cross_entropy", optimizer="sgd", checkpoints=checkpoints)


def test_two_failed_saves_in_a_row_are_told_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result = train(SometimesFull(tmp_path, {2, 3, 5, 6}))
    assert (result.step, result.stop_reason) == (10, "max_epochs reached")
    told = [record.getMessage() for record in caplog.records]
    assert told == ["No space left: 28. Training goes on."] * 4
    found = Checkpoints(tmp_path).load()
    assert found is not None
    assert found.step == 10


def test_three_in_a_row_end_it_and_what_was_saved_before_is_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No space left"):
        train(SometimesFull(tmp_path, {4, 5, 6}))
    found = Checkpoints(tmp_path).load()
    assert found is not None
    assert found.step == 3

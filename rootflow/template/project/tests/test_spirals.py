"""The model and the data set by themselves, and all configs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rootflow.build import build

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [f"experiment={p.stem}" for p in ROOT.glob("conf/experiment/*.yaml")]
SWEEPS = [f"+sweeps={p.stem}" for p in ROOT.glob("sweeps/*.yaml")]


def test_the_model_gives_one_number_for_each_class() -> None:
    model = build("model", {"name": "small_net", "in_features": 2, "num_classes": 3})
    assert model(torch.zeros(5, 2)).shape == (5, 3)


def test_the_data_is_the_same_each_time_and_another_with_another_seed() -> None:
    first, again, other = (
        build("dataset", {"name": "spirals", "seed": seed}).tensors[0]
        for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Experiments and sweeps that are added later are checked, too.
@pytest.mark.parametrize("argument", ["seed=1", *EXPERIMENTS, *SWEEPS])
def test_the_configs_have_no_mistakes(argument: str) -> None:
    command = [sys.executable, "-m", "rootflow", "check", argument]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

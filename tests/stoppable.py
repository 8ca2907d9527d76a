"""A model and data for runs that are stopped: by what the environment says, at a step or in an evaluation."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

STOP_AT = "STOP_AT"
"""`<step>`, or `<step>:evaluation`: where a signal comes."""
STOP_BY = "STOP_BY"
"""`SIGTERM` for example; `error` raises, so that nothing is saved; `wait` says so, and then takes its time."""


class Net(nn.Module):
    """With dropout and batch statistics, so that random numbers and buffers count."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 3)
        )
        self.num_steps = 0
        self.taken: dict[str, Any] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            _stop_if_due(f"{self.num_steps}:evaluation")
        return self.layers(inputs)

    def on_batch_end(self, report: Any) -> None:
        self.num_steps = report.step
        _stop_if_due(str(report.step))

    def get_save_dict(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps}

    def load_model_specific(self, saved: dict[str, Any]) -> None:
        self.taken = saved
        self.num_steps = saved["num_steps"]


class Pairs(Dataset[Any]):
    """Samples read one by one, each with noise of its own from global generators."""

    num_classes = 3

    def __init__(self, num_samples: int, seed: int) -> None:
        self.inputs, self.targets = _numbers(num_samples, seed)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index] + random.random() * torch.rand(4), int(self.targets[index])


NUM_SAMPLES = {"train": 64, "val": 20, "test": 10}


def pairs() -> dict[str, Pairs]:
    return {name: Pairs(number, seed) for seed, (name, number) in enumerate(NUM_SAMPLES.items())}


def tensors(num_train: int = NUM_SAMPLES["train"]) -> dict[str, TensorDataset]:
    """The same without noise, in memory."""
    numbers = {**NUM_SAMPLES, "train": num_train}
    return {
        name: TensorDataset(*_numbers(number, seed)) for seed, (name, number) in enumerate(numbers.items())
    }


def _numbers(num_samples: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num_samples, 4, generator=generator)
    return inputs, inputs[:, :3].argmax(1)


def _stop_if_due(place: str) -> None:
    if os.environ.get(STOP_AT) != place:
        return
    how = os.environ[STOP_BY]
    if how == "wait":
        print("waiting", flush=True)
        time.sleep(0.5)
    elif how == "error":
        raise ValueError("stopped")
    else:
        os.kill(os.getpid(), getattr(signal, how))

"""Real models under real limits of the address space: what the search finds, and what is true.

As a program it prints a line of JSON for each pair of a model and a limit. The truth comes from processes of
their own, each of which runs one size alone by a loop written by hand, under the limit less the headroom.

    python -m tests.discover.memory_limit_pairs NUM_PAIRS

With GLIBC_TUNABLES=glibc.malloc.mmap_threshold=262144, as the test sets it, freed tensors go back to the system, and
the address space of an update is what its tensors take. Otherwise glibc keeps up to some 100 MB, by the order
of what came before, and for limits so small as these here the truth depends on that.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from rootflow.discover.batch_size import search_batch_size
from rootflow.discover.batches import resized
from rootflow.discover.settings import BatchSizeSettings, MicroBatchSizeSettings
from rootflow.discover.trials import Trials
from rootflow.tasks import LossTask
from rootflow.train.precision import Arithmetic

NUM_SAMPLES = 2**16 + 5
HEADROOM = 0.1
LEAST_BYTES, MOST_BYTES = 120e6, 230e6


class Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(16, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


def wide(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)), (64,)


def normed(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 10)), (8,)


def convolutional(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    layers = [
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 2),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)), (3, 64, 64)


def recurrent(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    return Recurrent(width), (64, 16)


def attention(width: int) -> tuple[nn.Module, tuple[int, ...]]:
    return Attention(width), (128, width)


MODELS: list[tuple[Callable[[int], tuple[nn.Module, tuple[int, ...]]], list[int]]] = [
    (wide, [4096, 8192, 16384]),
    (normed, [2**14, 2**15, 2**16]),
    (convolutional, [16, 24, 32]),
    (recurrent, [128, 192, 256]),
    (attention, [32, 48, 64]),
]


class Case:
    """A model, its trials, and a limit, made anew in each process."""

    def __init__(self, number: int) -> None:
        draw = random.Random(number)
        build, widths = MODELS[number % len(MODELS)]
        self.name = f"{build.__name__} {number}"
        self.free_bytes = int(math.exp(draw.uniform(math.log(LEAST_BYTES), math.log(MOST_BYTES))))
        torch.manual_seed(number)
        self.model, shape = build(draw.choice(widths))
        kind = draw.choice([SGD, AdamW])
        self.optimizer: Optimizer = kind(self.model.parameters(), lr=1e-3)
        self.batch = (torch.randn(8, *shape), torch.randint(10, (8,)))
        self.trials = Trials(
            self.model,
            LossTask(F.cross_entropy),
            [self.optimizer],
            arithmetic=Arithmetic(torch.device("cpu")),
        )

    def search(self) -> dict[str, Any]:
        with self.trials:
            limit_to(self.free_bytes)
            report = search_batch_size(
                self.trials,
                self.batch,
                num_samples=NUM_SAMPLES,
                batch_settings=BatchSizeSettings(rule="largest", max=2**16, min_updates_per_epoch=1),
                micro_settings=MicroBatchSizeSettings(headroom=HEADROOM),
                eval_batch=self.batch,
            )
        return {
            "name": self.name,
            "free_bytes": self.free_bytes,
            "found": report.suggestion,
            "num_full_size_tries": report.num_full_size_tries,
            "num_out_of_memory": report.num_out_of_memory,
            "curve": report.curve,
            "elapsed_s": report.elapsed_s,
        }

    def fits_alone(self, size: int) -> bool:
        """Whether a hand-written loop gets through two updates, a rest and an evaluation."""
        with self.trials:  # whose copies of the weights the search has beside it, too
            limit_to(int(self.free_bytes * (1 - HEADROOM)))
            try:
                self.run(size)
            except RuntimeError as error:
                if not any(
                    part in str(error) for part in ("can't allocate memory", "could not execute a primitive")
                ):
                    raise
                return False
        return True

    def run(self, size: int) -> None:
        inputs, targets = resized(self.batch, size)
        for part in (size, size, NUM_SAMPLES % size):
            if part > 1:
                self.optimizer.zero_grad()
                F.cross_entropy(self.model(inputs[:part]), targets[:part]).backward()
                self.optimizer.step()
        self.model.eval()
        with torch.inference_mode():
            F.cross_entropy(self.model(inputs), targets)


def limit_to(num_bytes: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes, resource.RLIM_INFINITY))


def in_a_process(work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns in a child, whose heap and limits are its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer: Any = work()
        except BaseException as error:  # noqa: BLE001  # the parent fails with it
            answer = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def find_truth(number: int, near: int) -> int:
    """Return the largest power of two that fits alone, looking from a size on."""

    def fits(size: int) -> bool:
        answer = in_a_process(lambda: Case(number).fits_alone(size))
        if isinstance(answer, dict):
            raise RuntimeError(answer["error"])
        return bool(answer)

    size = near
    if fits(size):
        while fits(2 * size):
            size *= 2
        return size
    while size > 1:
        size //= 2
        if fits(size):
            return size
    return 0


def main(num_pairs: int) -> None:
    torch.set_num_threads(1)
    F.cross_entropy(nn.Linear(2, 2)(torch.zeros(1, 2)), torch.zeros(1).long()).backward()
    AdamW([torch.zeros(1, requires_grad=True)]).step()  # imports half of torch
    for number in range(num_pairs):
        row = in_a_process(lambda number=number: Case(number).search())
        if "error" not in row:
            row["true"] = find_truth(number, max(row["found"], 1))
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

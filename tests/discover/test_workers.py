"""How many processes read samples: the rule, and the measurement behind it."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from rootflow.data.loaders import find_num_workers as find_num_workers_by_cores
from rootflow.discover.workers import ReadingCost, choose_num_workers, find_num_workers, measure_reading
from tests.discover.traces import traces

MS = 1e-3


def computing(wall_ms: float) -> ReadingCost:
    return ReadingCost(wall_ms * MS, wall_ms * MS)


def waiting(wall_ms: float) -> ReadingCost:
    return ReadingCost(wall_ms * MS, 0.1 * wall_ms * MS)


@pytest.mark.parametrize(
    ("cost", "update_ms", "num_cores", "value", "reason"),
    [
        (computing(0.9), 12, 8, 4, "0.9 ms to read a sample, 12 ms an update of 32: 4 processes keep up"),
        (computing(0.3), 12, 8, 2, "0.3 ms to read a sample, 12 ms an update of 32: 2 processes keep up"),
        (
            computing(0.01),
            12,
            8,
            0,
            "0.01 ms to read a sample, 12 ms an update of 32: reading hardly takes time",
        ),
        (
            waiting(0.03),
            12,
            2,
            0,
            "0.03 ms to read a sample, 12 ms an update of 32: reading hardly takes time",
        ),
        (computing(0.9), 12, 2, 0, "2 usable cores, reading and training would only take turns"),
        (computing(0.9), 12, 1, 0, "1 usable cores, reading and training would only take turns"),
        (computing(0.9), 12, 3, 2, "4 processes would keep up, 2 leave the training one of 3 cores"),
        (computing(50), 1200, 64, 3, "50 ms to read a sample, 1.2 s an update of 32: 3 processes keep up"),
        (
            computing(123),
            10,
            64,
            8,
            "120 ms to read a sample, 10 ms an update of 32: 395 processes would keep up",
        ),
        (waiting(0.9), 12, 2, 4, "0.9 ms to read a sample, 12 ms an update of 32: 4 processes keep up"),
        (waiting(0.9), 12, 1, 4, "4 processes keep up"),
        (waiting(90), 12, 2, 8, "241 processes would keep up, 8 are the most"),
    ],
)
def test_as_many_processes_read_as_keep_up_where_they_pay(
    cost: ReadingCost, update_ms: float, num_cores: int, value: int, reason: str
) -> None:
    found = choose_num_workers(cost, 32, seconds_per_update=update_ms * MS, num_cores=num_cores)
    assert found.value == value
    assert reason in found.reason


def test_reading_waits_where_most_of_its_time_is_not_spent_on_a_processor() -> None:
    assert ReadingCost(1.0, 0.3).is_waiting
    assert not ReadingCost(1.0, 0.5).is_waiting  # as on a machine that is busy with something else
    assert not ReadingCost(1.0, 3.0).is_waiting  # threads of its own


class Pairs(Dataset[Any]):
    """Samples that take time by a clock of their own, and are noted."""

    def __init__(self, seconds: Callable[[int], float] = lambda _: 0.001, size: int = 1_000) -> None:
        self.seconds, self.size = seconds, size
        self.num_read = 0
        self.seen: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        CLOCK.pass_by(self.seconds(CLOCK.num_read))
        self.num_read += 1
        self.seen.append(index)
        CLOCK.seen.append(index)
        return torch.rand(2), random.random() + float(np.random.rand())


class Clock:
    """Shows the time that samples took, a quarter of which a processor did."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.num_read = 0
        self.seen: list[int] = []

    def __call__(self) -> tuple[float, float]:
        return 100 + self.time_s, 7 + self.time_s / 4

    def pass_by(self, seconds: float) -> None:
        self.time_s += seconds
        self.num_read += 1


CLOCK = Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(f"{__name__}.CLOCK", Clock())
    return CLOCK


def measured(dataset: Dataset[Any]) -> tuple[float, float]:
    cost = measure_reading(dataset, clock=CLOCK)
    return cost.wall_s, cost.cpu_s


def test_the_first_sample_which_opens_files_does_not_count() -> None:
    found = measured(Pairs(lambda number: 0.1 if number == 0 else 0.002))
    assert found == (pytest.approx(0.002), pytest.approx(0.0005))


def test_samples_of_all_lengths_count_by_their_mean() -> None:
    found = measured(Pairs(lambda number: 0.002 if number % 2 else 0.004))
    assert found[0] == pytest.approx(0.003, rel=0.02)


@pytest.mark.parametrize(
    ("sample_s", "count"), [(0.001, 64), (0.01, 32), (0.1, 4), (0.2, 2), (0.3, 1), (10.0, 1)]
)
def test_the_measurement_takes_half_a_second_or_one_sample(sample_s: float, count: int) -> None:
    found = measured(Pairs(lambda _: sample_s))
    assert found == (pytest.approx(sample_s), pytest.approx(sample_s / 4))
    assert CLOCK.num_read == count


def test_the_samples_come_from_all_over_the_data() -> None:
    measured(Pairs(size=640))
    assert sorted(CLOCK.seen) == list(range(0, 640, 10))
    assert max(CLOCK.seen[:4]) - min(CLOCK.seen[:4]) > 300


@pytest.mark.parametrize("size", [1, 3, 63, 65])
def test_small_data_can_be_measured(size: int) -> None:
    measured(Pairs(size=size))
    assert set(CLOCK.seen) <= set(range(size))
    assert len(set(CLOCK.seen)) >= min(size, 60)


def test_measuring_leaves_no_trace() -> None:
    dataset = Pairs()
    before = traces(dataset)
    measured(dataset)
    assert traces(dataset) == before


def test_a_sample_that_can_not_be_read_is_told_and_leaves_no_trace() -> None:
    def fail(number: int) -> float:
        if number == 5:
            raise ValueError("broken file")
        return 0.001

    dataset = Pairs(fail)
    before = traces(dataset)
    with pytest.raises(ValueError, match="broken file") as failure:
        measured(dataset)
    assert "while reading sample" in failure.value.__notes__[0]
    assert traces(dataset) == before


def test_a_signal_ends_the_measurement() -> None:
    def interrupt(number: int) -> float:
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        return 0.001

    dataset = Pairs(interrupt)
    before = traces(dataset)
    with pytest.raises(KeyboardInterrupt):
        measured(dataset)
    assert CLOCK.num_read == 4
    assert traces(dataset) == before


def test_samples_are_read_as_the_loader_reads_them() -> None:
    class Drawn(Dataset[Any]):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> float:
            drawn.setdefault(index, random.random())
            return 0.0

    drawn: dict[int, float] = {}
    measure_reading(Drawn())
    first = dict(drawn)
    drawn.clear()
    random.seed(5)
    measure_reading(Drawn())
    assert drawn == first
    assert len(set(drawn.values())) == len(drawn)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[int]:
        raise AssertionError("nobody reads it")


@pytest.mark.parametrize(("dataset", "seconds_per_update"), [(Stream(), 0.01), (Pairs(), None)])
def test_what_can_not_be_measured_is_decided_by_the_number_of_cores(
    dataset: Dataset[Any], seconds_per_update: float | None
) -> None:
    found = find_num_workers(dataset, 32, seconds_per_update=seconds_per_update)
    assert (found.value, found.reason) == find_num_workers_by_cores("auto")
    assert CLOCK.num_read == 0


class Sleeping(Dataset[Any]):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> int:
        time.sleep(0.02)
        return index


class Burning(Sleeping):
    def __getitem__(self, index: int) -> int:
        end_s = time.thread_time() + 0.01
        while time.thread_time() < end_s:
            pass
        return index


def test_data_that_is_waited_for_is_read_by_many_even_on_two_cores() -> None:
    found = find_num_workers(Sleeping(), 8, seconds_per_update=0.001, num_cores=2)
    assert found.value == 8


def test_processors_that_read_are_told_from_waiting() -> None:
    cost = measure_reading(Burning())
    assert cost.wall_s >= 0.99 * cost.cpu_s
    assert cost.cpu_s >= 0.01
    assert find_num_workers(Burning(), 8, seconds_per_update=100.0, num_cores=8).value == 0

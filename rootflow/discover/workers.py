"""`loader.num_workers: auto`: how many processes read samples, by what reading one takes.

Workers pay where updates would wait for data. On two cores or fewer they would take turns with the training,
unless reading is mostly waiting: for a disk, or for a network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from rootflow.data.loaders import count_usable_cores
from rootflow.data.loaders import find_num_workers as find_num_workers_by_cores
from rootflow.data.samples import num_samples
from rootflow.data.workers import SeededDataset, collate
from rootflow.discover.found import Found
from rootflow.discover.undo import undoing

_MOST_SAMPLES = 64
_STRIDE = 37
"""From one sample read to the next, in 64ths of the data: odd, so that all come, and from far apart."""
_MOST_S = 0.5
"""That the measurement takes, and the sample longer that is being read then."""
_WORTH_SHARING = 0.1
"""Share of an update's time from which reading its batch is handed to others, who have to pass it on."""
_WAITS_FROM = 3.0
"""Time over time on a processor from which reading is mostly waiting; a busy machine makes it 2, too."""
_MOST_WORKERS = 8
_MIN_CORES = 3
"""From which workers that compute leave the training a core."""


@dataclass(frozen=True)
class ReadingCost:
    """What reading one sample takes, in seconds."""

    wall_s: float
    cpu_s: float
    """Of the time, that on processors."""

    @property
    def is_waiting(self) -> bool:
        """Whether most of the time is spent waiting for something else than a processor."""
        return self.wall_s > _WAITS_FROM * self.cpu_s


def _clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def find_num_workers(
    dataset: Dataset[Any], batch_size: int, *, seconds_per_update: float | None, num_cores: int | None = None
) -> Found:
    """Return as many processes as keep up with the updates, by reading some samples for half a second.

    The data set, as far as `Undo` looks, and the random generators are as before.

    Args:
        dataset: of samples that are read one by one.
        batch_size: samples an update.
        seconds_per_update: without reading; None where nobody knows, and then the number of cores decides.
        num_cores: that may be used; None counts them.
    """
    if seconds_per_update is None or isinstance(dataset, IterableDataset):
        return Found(*find_num_workers_by_cores("auto"))
    num_cores = count_usable_cores() if num_cores is None else num_cores
    cost = measure_reading(dataset)
    return choose_num_workers(cost, batch_size, seconds_per_update=seconds_per_update, num_cores=num_cores)


def choose_num_workers(
    cost: ReadingCost, batch_size: int, *, seconds_per_update: float, num_cores: int
) -> Found:
    """Return as many processes as keep up with the updates and one more, or 0 where they wouldn't pay.

    Args:
        cost: of a sample.
        batch_size: samples an update.
        seconds_per_update: without reading.
        num_cores: that may be used.
    """
    shown = f"{_shown(cost.wall_s)} to read a sample, {_shown(seconds_per_update)} an update of {batch_size}"
    reading_s = cost.wall_s * batch_size
    if reading_s < _WORTH_SHARING * seconds_per_update:
        return Found(0, f"{shown}: reading hardly takes time")
    if num_cores < _MIN_CORES and not cost.is_waiting:
        return Found(0, f"{shown}; with {num_cores} usable cores, reading and training would only take turns")
    most = _MOST_WORKERS if cost.is_waiting else min(_MOST_WORKERS, num_cores - 1)
    needed = math.ceil(reading_s / seconds_per_update) + 1
    if needed > most:
        bound = "are the most" if most == _MOST_WORKERS else f"leave the training one of {num_cores} cores"
        return Found(most, f"{shown}: {needed} processes would keep up, {most} {bound}")
    return Found(needed, f"{shown}: {needed} processes keep up")


def measure_reading(
    dataset: Dataset[Any], *, clock: Callable[[], tuple[float, float]] = _clock
) -> ReadingCost:
    """Read some samples from all over a data set, as a loader without workers does.

    The first one isn't counted, for it opens files and imports modules, unless reading it took all the time.

    Args:
        dataset: left as it is, as are the random generators.
        clock: tells the time, and the time spent on processors by this process, in seconds.

    Raises:
        KeyboardInterrupt, SystemExit: a signal came.
    """
    seeded = SeededDataset(dataset, seed=0)
    with undoing([seeded]) as (_, interrupts):
        began = clock()
        num_read = _read(seeded, 0, 1)
        first = clock()
        last, counted_from = first, 1
        while num_read < _MOST_SAMPLES and 2 * (last[0] - began[0]) <= _MOST_S:
            num_read += _read(seeded, num_read, num_read)
            last = clock()
            if interrupts.pending is not None:
                interrupts.leave()
        if num_read == counted_from:
            last, first, counted_from = first, began, 0
    count = num_read - counted_from
    return ReadingCost((last[0] - first[0]) / count, (last[1] - first[1]) / count)


def _read(seeded: SeededDataset, start: int, count: int) -> int:
    """Read and stack samples that lie far apart; return how many."""
    size = num_samples(seeded.dataset)
    positions = [
        _STRIDE * number % _MOST_SAMPLES * size // _MOST_SAMPLES for number in range(start, start + count)
    ]
    collate(seeded.__getitems__([(0, position) for position in positions]))
    return count


def _shown(seconds: float) -> str:
    """Return a time in two digits: `0.9 ms`, `120 ms`, `1.5 s`."""
    number, unit = (seconds, "s") if seconds >= 1 else (1_000 * seconds, "ms")
    return f"{float(f'{number:.2g}'):g} {unit}"

"""Which sizes fit in the memory: measured at small ones, predicted for large ones, and then run.

The peak of an update is the largest of several sums, each linear in the number of samples. So it is convex: a
line through two small sizes promises too much for a large one. Large sizes are therefore approached from
nearer and nearer by, and what is said to fit has been run, with the headroom kept free.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from rootflow.discover.batches import count_bytes, resized
from rootflow.discover.memory import Memory, Peak
from rootflow.discover.trials import Trials
from rootflow.train.evaluation import evaluate
from rootflow.train.learner import Learner
from rootflow.train.methods import method_of
from rootflow.train.objective import count_samples
from rootflow.train.out_of_memory import count_asked_bytes, free_memory, survive_out_of_memory

_TIMED_S = 0.1
_MOST_TIMED = 20
"""Seconds and updates after which a size has been timed, whichever comes first; two updates at least."""
_FARTHEST = 8
"""Times the last size that is extrapolated to at once."""
_CONVEXITY = 0.1
"""What a line through two sizes may lack of the growth up to a size more than twice as large."""
_AMPLE = 4
"""Times what a size needs at the most; with so much memory one update is enough to see that it fits."""
_DIRECT = 64
"""Samples up to which a size that is sure to fit is run at once, nothing smaller before it."""


@dataclass(frozen=True)
class TriedSize:
    """What running one size has shown."""

    size: int
    fits: bool
    peak_bytes: int | None = None
    """Beyond what was in use before the search; None where this system doesn't tell it."""
    predicted_bytes: int | None = None
    """The same, from the two sizes before it; None of the first ones."""
    seconds_per_update: float | None = None
    """None where it wasn't timed."""

    @property
    def samples_per_s(self) -> float | None:
        """Throughput of the updates; None where they weren't timed."""
        return self.size / self.seconds_per_update if self.seconds_per_update else None


class Line(NamedTuple):
    """The memory of an update against its number of samples, through the last two sizes that were run."""

    size: int
    """The larger one."""
    num_bytes: float
    bytes_per_sample: float
    error_per_sample: float
    """By which both may be off together, because peaks are measured only so exactly."""

    def at(self, size: int) -> float:
        """Return the bytes that a size is expected to need."""
        return self.num_bytes + self.bytes_per_sample * (size - self.size)

    def size_at(self, num_bytes: int) -> int:
        """Return the size that is expected to need so much."""
        return self.size + int((num_bytes - self.num_bytes) / max(self.bytes_per_sample, 1.0))

    def least_at(self, size: int) -> float:
        """Return what it needs at the least."""
        return self.at(size) - self.error_per_sample * (size - self.size)

    def most_at(self, size: int) -> float:
        """Return what it needs at the most."""
        error = self.error_per_sample * (size - self.size)
        if size > 2 * self.size:
            error += _CONVEXITY * (self.at(size) - self.num_bytes)
        return self.at(size) + error


class Fitting:
    """Finds what fits by running updates of a training, each size from the same beginning.

    Args:
        trials: open; of the training.
        batch: a sample of its batches.
        memory: of the device.
        budget_bytes: what an update may need.
        num_samples: in an epoch, for its last batch, which is smaller.
        batch_size: if it is known: smaller sizes are then its parts, and their gradients are added up.
        eval_batch: is evaluated besides, at the same size.
    """

    def __init__(  # noqa: PLR0913  # what is run, and within which bounds
        self,
        trials: Trials,
        batch: Any,
        *,
        memory: Memory,
        budget_bytes: int,
        num_samples: int,
        batch_size: int | None = None,
        eval_batch: Any = None,
    ) -> None:
        self.budget_bytes = budget_bytes
        self.tried: dict[int, TriedSize] = {}
        self.num_out_of_memory = 0
        self.needed_bytes = 0
        """What the last size that didn't fit would have needed at the least."""
        self._trials = trials
        self._batch = batch
        self._memory = memory
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._eval_batch = eval_batch

    def find_largest(self, most: int, *, is_timed: bool = False) -> int:
        """Return the largest size that fits: ``most``, a power of two below, or 0 if one sample doesn't."""
        best = self._best_up_to(most) or self._find_first(most, is_timed=is_timed)
        if not best:
            return 0
        while (size := self._choose_next(best, min(most, self._most_unfailed()))) is not None:
            if self.fits(size, is_timed=is_timed):
                best = size
        return best

    def find_largest_even(self, most: int) -> int:
        """Return the largest even size that fits, or ``most``; 1 if two samples don't, 0 if one doesn't."""
        best = self.find_largest(most)
        if best in (0, 1, most):
            return best
        bad = min(self._failed(), default=most + 1)
        bad += bad % 2
        line, step = self.line(), 2
        guess = best if line is None else line.size_at(self.budget_bytes)
        while bad - best > 2:
            guess -= guess % 2
            size = guess if best < guess < bad else (best + bad) // 4 * 2
            if self.fits(size):
                best, guess = size, size + step
            else:
                bad, guess = size, size - step
            step *= 2
        return best

    def fits(self, size: int, *, is_timed: bool = False) -> bool:
        """Run a size unless that has been done, and return whether it fits."""
        tried = self.tried.get(size)
        if tried is None or (is_timed and tried.fits and tried.seconds_per_update is None):
            self.tried[size] = tried = self._try(size, is_timed=is_timed)
        return tried.fits

    def time_again(self, size: int) -> None:
        """Time a size once more; the shorter time counts, since other programs only add to it."""
        before, again = self.tried[size], self._try(size, is_timed=True)
        times = [tried.seconds_per_update for tried in (before, again) if tried.seconds_per_update]
        self.tried[size] = replace(before, seconds_per_update=min(times))

    def line(self) -> Line | None:
        """Return what sizes need, from the largest two that were run; None where too little is known."""
        known = [
            (size, tried.peak_bytes)
            for size, tried in sorted(self.tried.items())
            if tried.fits and tried.peak_bytes is not None
        ]
        if not known:
            return None
        size, num_bytes = known[-1]
        if len(known) == 1:  # between none and all of it is the samples'
            return Line(size, num_bytes, num_bytes / 2 / size, num_bytes / 2 / size)
        smaller, fewer_bytes = known[-2]
        growth = max(num_bytes - fewer_bytes, 0)
        resolution = self._memory.resolution_bytes
        return Line(size, num_bytes, growth / (size - smaller), resolution / (size - smaller))

    def _failed(self) -> list[int]:
        return [size for size, tried in self.tried.items() if not tried.fits]

    def _most_unfailed(self) -> int:
        """Return the largest power of two below all sizes that didn't fit."""
        return _power_below(min(self._failed(), default=sys.maxsize))

    def _best_up_to(self, most: int) -> int:
        return max((size for size, tried in self.tried.items() if tried.fits and size <= most), default=0)

    def _find_first(self, most: int, *, is_timed: bool) -> int:
        """Return a first size that fits, 2 or more where it can be: batch norm needs two samples."""
        at_once = min(most, _DIRECT)
        is_sure = _AMPLE * self._rough_bytes(at_once) < self.budget_bytes
        sizes = [at_once, min(2, most), 1] if is_sure else [min(2, most), 1]
        return next((size for size in dict.fromkeys(sizes) if self.fits(size, is_timed=is_timed)), 0)

    def _choose_next(self, best: int, most: int) -> int | None:
        """Return the size to run after the largest one that fits so far; None if no other one would fit."""
        line = self.line()
        larger = list(_sizes(best, min(most, _FARTHEST * best)))[1:]
        if not larger:
            return None
        if line is None:
            return larger[0]
        sure = [size for size in larger if line.most_at(size) <= self.budget_bytes]
        if sure:
            return sure[-1]
        return larger[0] if line.least_at(larger[0]) <= self.budget_bytes else None

    def _rough_bytes(self, size: int) -> float:
        """Return more than an update of nearly any network takes: activations grow with a network's width."""
        parameters = list(self._trials.objective.model.parameters())
        num_weights = sum(parameter.numel() for parameter in parameters)
        input_bytes = count_bytes(self._batch) / max(count_samples(self._batch), 1)
        return 32 * num_weights + 8 * math.sqrt(num_weights + 1024) * size * input_bytes

    def _try(self, size: int, *, is_timed: bool) -> TriedSize:
        line = self.line()
        is_ample = line is not None and _AMPLE * line.most_at(size) < self.budget_bytes
        with self._memory.measuring() as peak:
            found = survive_out_of_memory(
                lambda: self._run(size, peak, is_timed=is_timed, is_short=is_ample and not is_timed)
            )
            if isinstance(found, Exception):
                free_memory(self._trials.arithmetic.device)
        is_predicted = line is not None and size > line.size and len(self.tried) > 1
        predicted = round(line.at(size)) if line is not None and is_predicted else None
        if isinstance(found, Exception):
            self.num_out_of_memory += 1
            self.needed_bytes = (peak.num_bytes or 0) + count_asked_bytes(found)
            return TriedSize(size, fits=False, predicted_bytes=predicted)
        fits = peak.num_bytes is None or peak.num_bytes <= self.budget_bytes
        if not fits:
            self.needed_bytes = peak.num_bytes or 0
        return TriedSize(
            size,
            fits=fits,
            peak_bytes=peak.num_bytes,
            predicted_bytes=predicted,
            seconds_per_update=found,
        )

    def _run(self, size: int, peak: Peak, *, is_timed: bool, is_short: bool) -> float | None:
        """Run whole updates and an evaluation; return the seconds of an update, if it is timed.

        A short run is one update, and nothing else.
        """
        with self._trials.trial() as learner, self._memory.limited(self.budget_bytes):
            whole = self._batch_size or size
            batch = resized(self._batch, min(2 * size, whole))
            if size < whole:
                learner.micro_batch_size = size
            learner.update(batch)  # makes the optimizer's state, and whatever else is made once
            if is_short:
                return None
            peak.begin_anew()
            seconds = self._seconds_per_update(learner, batch) if is_timed else None
            if seconds is None:
                learner.update(batch)
            rest = self._num_samples % whole % size
            if rest > 1:  # of one sample there is no batch norm
                learner.update(resized(batch, rest))
            if self._eval_batch is not None:
                self._evaluate(size)
        return seconds

    def _evaluate(self, size: int) -> None:
        objective = self._trials.objective
        if method_of(objective.model, "check_performance") is None:  # which wants a loader, not a batch
            batches = [resized(self._eval_batch, size)]
            evaluate(objective.model, batches, arithmetic=self._trials.arithmetic, task=objective.task)

    def _seconds_per_update(self, learner: Learner, batch: Any) -> float:
        """Return the least time of a few updates: whatever else the machine does only adds to it."""
        clock = find_clock(self._trials.arithmetic.device)
        times: list[float] = []
        before_s = clock()
        while len(times) < 2 or (sum(times) < _TIMED_S and len(times) < _MOST_TIMED):
            learner.update(batch)
            after_s = clock()
            times.append(after_s - before_s)
            before_s = after_s
        return min(times)


def _sizes(first: int, most: int) -> Iterator[int]:
    """Yield ``first`` and its doubles up to ``most``, and ``most`` itself."""
    size = first
    while size < most:
        yield size
        size *= 2
    if first <= most:
        yield most


def _power_below(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def find_clock(device: torch.device) -> Callable[[], float]:
    """Return what tells the time, in seconds, when a device has done all its work.

    On one thread of a CPU it is the time of that thread, to which other programs add nothing.
    """
    if device.type == "cpu":
        return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def wait_and_look() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return wait_and_look

"""Which learning rate a range test suggests: four rules on its curve, as functions of rates and losses.

The rules are those of fastai (`fastai/callback/schedule.py`), with the mistakes mended for which their users
had to look at the picture: each works on the part of the curve where the loss falls and comes back, never
on the rates too small to change anything nor on the explosion; slopes are per logarithm of the rate; no
threshold supposes a loss of a certain size. Where nothing falls, nothing is suggested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Losses = NDArray[np.float64]

_SIGMA = 2.5
"""Width, in points, of the Gaussian that smooths a curve; unlike a running average it shifts nothing."""
_NOISE_FACTOR = 2.0
"""Standard deviations of a batch's noise that a fall must exceed; a smoothed curve of noise alone has 1.5."""
_UNTOUCHED_FRAC = 0.05
"""Share of the fall up to which a rate counts as too small to change anything."""
_SLIDE_DECADES = 1.2
_SLIDE_SLOPE = 0.015
"""Width of the interval of `slide`, and the difference of slopes, in falls per e-fold of the rate, at which
it stops: 15 points and 0.005 at fastai's 100 points from 1e-7 to 10, for a loss that falls by 1.8."""


class Fall(NamedTuple):
    """Where on a curve the loss falls, as indices of its points."""

    start: int
    """The last point before it falls."""
    lowest: int
    end: int
    """One behind the last point below the level of the start."""
    depth: float


def finite_part(losses: Sequence[float] | Losses) -> Losses:
    """Return the losses before the first that isn't finite."""
    values = np.asarray(losses, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    return values[: bad[0]] if len(bad) else values


def smooth(losses: Sequence[float] | Losses) -> Losses:
    """Return the finite part of a curve, smoothed by a Gaussian over its points.

    What lies above the beginning by more than all that the loss falls counts as just that much: an explosion
    reaches no point before it.
    """
    values = finite_part(losses)
    if not len(values):
        return values
    level = _level(values)
    values = np.minimum(values, level + max(level - float(values.min()), 0.0))
    reach = np.arange(-math.ceil(3 * _SIGMA), math.ceil(3 * _SIGMA) + 1)
    weights = np.exp(-0.5 * (reach / _SIGMA) ** 2)
    inside = slice(len(reach) // 2, len(reach) // 2 + len(values))
    totals, shares = (np.convolve(line, weights)[inside] for line in (values, np.ones_like(values)))
    return np.asarray(totals / shares)


def _level(values: Losses) -> float:
    """Return the loss before anything has changed; a median, for the first batches may be far off."""
    return float(np.median(values[: _num_survey(values)]))


def _num_survey(values: Losses) -> int:
    """Return how many points at the beginning of a curve tell where it begins."""
    return max(len(values) // 10, 5)


def measure_noise(losses: Sequence[float] | Losses) -> float:
    """Return the standard deviation of a curve's noise, by the median of its steps: jumps don't count."""
    steps = np.diff(finite_part(losses))
    return 1.4826 * float(np.median(np.abs(steps))) / math.sqrt(2) if len(steps) else 0.0


def find_fall(losses: Sequence[float] | Losses) -> Fall | None:
    """Return where a curve falls; None where it doesn't, by more than the noise from batch to batch."""
    values = finite_part(losses)
    if len(values) < 5:
        return None
    smoothed = smooth(values)
    level = _level(values)
    lowest = int(np.argmin(smoothed))
    depth = level - float(smoothed[lowest])
    if lowest < _num_survey(values) or depth <= max(_NOISE_FACTOR * measure_noise(values), 1e-9 * abs(level)):
        return None
    untouched = np.flatnonzero(smoothed[:lowest] > level - _UNTOUCHED_FRAC * depth)
    exploded = np.flatnonzero(smoothed[lowest:] > level)
    start = int(untouched[-1]) if len(untouched) else 0
    return Fall(start, lowest, lowest + int(exploded[0]) if len(exploded) else len(values), depth)


def valley(lrs: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return the middle of the longest valley: of the longest subsequence of losses that only falls.

    The default of fastai since its PR #3377. There the valley begins as many points before its end as the
    subsequence has, here where the subsequence begins.
    """
    fall = find_fall(losses)
    if fall is None:
        return None
    start, end = _longest_decrease(smooth(losses)[fall.start : fall.end])
    return float(lrs[fall.start + (start + end) // 2])


def slide(lrs: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return the left end of an interval that slides down from the explosion until its ends slope alike.

    The "interval slide rule" of fastai (PR #3377).
    """
    fall = find_fall(losses)
    if fall is None or fall.end - fall.start < 2:
        return None
    logs = np.log(np.asarray(lrs[: fall.end], dtype=np.float64))
    slopes = np.gradient(smooth(losses)[: fall.end], logs) / fall.depth
    left = fall.start
    for right in range(fall.end - 1, fall.start, -1):
        left = max(int(np.searchsorted(logs, logs[right] - _SLIDE_DECADES * math.log(10))), fall.start)
        if left == fall.start or abs(slopes[right] - slopes[left]) <= _SLIDE_SLOPE:
            break
    return float(lrs[left])


def steep(lrs: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return where the loss falls the fastest, per logarithm of the rate (fastai)."""
    fall = find_fall(losses)
    if fall is None or fall.lowest - fall.start < 1:
        return None
    part = slice(fall.start, fall.lowest + 1)
    slopes = np.gradient(smooth(losses)[part], np.log(np.asarray(lrs[part], dtype=np.float64)))
    return float(lrs[fall.start + int(np.argmin(slopes))])


def minimum(lrs: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return a tenth of the rate of the lowest loss (fastai)."""
    fall = find_fall(losses)
    return None if fall is None else float(lrs[fall.lowest]) / 10


RULES: Mapping[str, Callable[[Sequence[float], Sequence[float]], float | None]] = {
    "valley": valley,
    "slide": slide,
    "steep": steep,
    "minimum": minimum,
}
"""The rules by the names in `discover.lr.suggest`."""


def _longest_decrease(values: Losses) -> tuple[int, int]:
    """Return the first and the last index of the longest strictly decreasing subsequence."""
    lengths, firsts = [1] * len(values), list(range(len(values)))
    for i in range(len(values)):
        for j in range(i):
            if values[i] < values[j] and lengths[i] < lengths[j] + 1:
                lengths[i], firsts[i] = lengths[j] + 1, firsts[j]
    end = int(np.argmax(lengths))
    return firsts[end], end

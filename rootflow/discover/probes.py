"""Short trainings, one for each learning rate, and the rate that a long training should have by them.

Each begins from the same weights, sees the same batches in the same order, warms up and decays to 0, and is
judged by its loss on samples held out from them. Short trainings prefer smaller rates than long ones do
(Wu et al. 2018, "Understanding Short-Horizon Bias in Stochastic Meta-Optimization", arXiv 1803.02021). So the
choice lies above the best rate, towards the highest that loses no more than a longer training makes up for.
And it lies well below what breaks a training: below the first rate whose probe did, and so low that a higher
rate holds without any decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rootflow.discover.range_test import LOOK_EVERY, Rates, has_exploded
from rootflow.discover.trials import Trials
from rootflow.tasks import LossSum
from rootflow.train.learner import Learner
from rootflow.train.objective import count_samples, take_part

STEP = 10**0.25
"""Factor between neighbouring places on the scale of rates; the search begins with every second one."""
_LENGTH_FRAC = 0.1
"""Share of the updates that a probe gets; a search rarely needs more than eight."""
_PROBES_FRAC = 0.85
"""Share that all probes get; what is left is for holding a rate."""
_HELD_LENGTH = 2
"""Probes that a trial to hold a rate is as long as."""
_MOST_BLIND = 6
"""Probes up, and probes down, while none has lowered the loss yet."""
_WARMUP_FRAC = 0.1
_MOST_LOST = 0.25
"""Share of the best probe's gain that a usable rate may lose at most."""
_TOWARDS_EDGE = 0.6
"""Where the choice lies between the best rate, 0, and the highest usable one, 1."""
_BELOW_BROKEN = 2
"""Steps from the first rate that breaks a probe to the highest choice: a factor of 3.2. Smith (2017) takes a
third or a quarter of the largest rate that converges."""


class Probe(NamedTuple):
    """One short training."""

    lr: float
    """The peak, of the first parameter group."""
    num_steps: int
    score: float | None
    """Loss on the samples held out; None where the training broke."""


@dataclass(frozen=True)
class Ground:
    """On what probes run.

    Args:
        trials: open.
        rates: of its optimizers.
        train: batches to train on, repeated where there are too few.
        held_out: batches to judge by.
        noise: standard deviation of the losses of batches.
    """

    trials: Trials
    rates: Rates
    train: Sequence[Any]
    held_out: Sequence[Any]
    noise: float


class Probes:
    """Tries rates around a first one, within a number of updates.

    Args:
        ground: on what.
        start_lr: place 0 of the scale.
        max_steps: updates that may be spent.
    """

    def __init__(self, ground: Ground, start_lr: float, max_steps: int) -> None:
        self.ground = ground
        self.start_lr = start_lr
        self.max_steps = max_steps
        self.length = int(_LENGTH_FRAC * max_steps)
        """Updates of a probe."""
        self.num_steps = 0
        """Updates spent."""
        with ground.trials.trial() as learner:
            self.first_loss = _score(learner, ground.held_out)
        self._found: dict[int, Probe] = {}

    def run(self) -> float | None:
        """Return the learning rate to take; None where none lowers the loss."""
        self._walk(+2)
        if self._best_place() in (None, 0):
            self._walk(-2)
        if self._best_place() is None:
            return None
        self._refine()
        return self.lr_at(self._held(self._choice()))

    @property
    def rows(self) -> tuple[Probe, ...]:
        """The probes made, by rising rates."""
        return tuple(self._found[place] for place in sorted(self._found))

    @property
    def best(self) -> Probe | None:
        """The probe of the lowest loss."""
        place = self._best_place()
        return None if place is None else self._found[place]

    def lr_at(self, place: float) -> float:
        """Return the rate at a place of the scale, to two digits."""
        return float(f"{self.start_lr * STEP**place:.2g}")

    def _walk(self, step: int) -> None:
        """Probe ever higher, or lower, places until two are worse than the best, or one is far worse."""
        place, num_worse = min(step, 0), 0
        while num_worse < 2 and self._has_left():
            self._probe(place)
            best = self._best_place()
            if best is None:
                is_over = (step > 0 and self._found[place].score is None) or place == _MOST_BLIND * step
                num_worse = 2 if is_over else 0
            elif place != best:
                num_worse += 1 if self._lost(self._found[place].score, best) <= _MOST_LOST else 2
            place += step

    def _refine(self) -> None:
        """Probe the places beside the best one, and below the first that isn't usable."""
        for _ in range(2):  # the best one may have become another
            for place in (self._best() + 1, self._best() - 1, self._edge(_MOST_LOST) + 1):
                is_inside = min(self._found) < place < max(self._found)
                if is_inside and place not in self._found and self._has_left():
                    self._probe(place)

    def _choice(self) -> float:
        best = self._best()
        wanted = best + _TOWARDS_EDGE * (self._edge(self._most_lost(best)) - best)
        broken = [place for place, probe in self._found.items() if probe.score is None and place > best]
        return min([wanted, *(place - _BELOW_BROKEN for place in broken)])

    def _most_lost(self, best: int) -> float:
        """Return how much of the gain a usable rate may lose: what half as long a probe of the best lacks.

        So much a longer training makes up for; near the end of what can be learned it is nearly nothing.
        """
        length = max(self.length // 2, 1)
        if self.max_steps - self.num_steps < length:
            return _MOST_LOST
        with self.ground.trials.trial() as learner:
            self._train(learner, self.lr_at(best), one_cycle(length))
            lost = self._lost(_score(learner, self.ground.held_out), best)
        return min(max(lost, 0.0), _MOST_LOST)

    def _held(self, place: float) -> float:
        """Return the highest place, from one on down, above which the next holds without decay.

        The loss of a network gets steeper while it trains, so that a rate may break it later on only.
        """
        while (left := self.max_steps - self.num_steps) >= self.length:
            shares = warmed_up(min(left, _HELD_LENGTH * self.length))
            with self.ground.trials.trial() as learner:
                losses = self._train(learner, self.lr_at(place + 1), shares)
            if len(losses) == len(shares) and not self._is_broken(losses, losses[-1]):
                return place
            place -= 1
        return place

    def _best(self) -> int:
        place = self._best_place()
        assert place is not None
        return place

    def _best_place(self) -> int | None:
        """Return where the loss fell the most, if by more than the error of its measurement."""
        scores = {place: probe.score for place, probe in self._found.items() if probe.score is not None}
        best = min(scores, key=lambda place: scores[place], default=None)
        error = self.ground.noise / math.sqrt(len(self.ground.held_out))
        return best if best is not None and self.first_loss - scores[best] > error else None

    def _edge(self, most_lost: float) -> int:
        """Return the highest place from the best one on up to which no more than that is lost of the gain."""
        edge = best = self._best()
        for place in sorted(place for place in self._found if place > best):
            if self._lost(self._found[place].score, best) > most_lost:
                break
            edge = place
        return edge

    def _lost(self, score: float | None, best: int) -> float:
        """Return what a loss lacks of the best probe's gain, as a share of it."""
        lowest = self._found[best].score
        assert lowest is not None
        return math.inf if score is None else (score - lowest) / (self.first_loss - lowest)

    def _has_left(self) -> bool:
        return self.num_steps + self.length <= _PROBES_FRAC * self.max_steps

    def _probe(self, place: int) -> None:
        lr = self.lr_at(place)
        with self.ground.trials.trial() as learner:
            losses = self._train(learner, lr, one_cycle(self.length))
            is_whole = len(losses) == self.length
            score = _score(learner, self.ground.held_out) if is_whole else math.nan
        self._found[place] = Probe(lr, len(losses), None if self._is_broken(losses, score) else score)

    def _train(self, learner: Learner, lr: float, shares: Sequence[float]) -> list[float]:
        """Train at some shares of a rate; return the losses of the updates, fewer where it broke."""
        losses: list[float] = []
        waiting: list[Tensor] = []
        for number, share in enumerate(shares, 1):
            self.ground.rates.set(learner, lr * share)
            waiting.append(learner.update(self.ground.train[(number - 1) % len(self.ground.train)])[0])
            self.num_steps += 1
            if len(waiting) == LOOK_EVERY or number == len(shares):
                losses += torch.stack(waiting).tolist()
                waiting.clear()
                # a batch of data may be bad; two in a row are the rate's doing
                if int(learner.bad_steps) > 1 or has_exploded([x for x in losses if math.isfinite(x)]):
                    break
        return losses

    def _is_broken(self, losses: Sequence[float], score: float) -> bool:
        """Whether a training failed, or was thrown further up on its way than the best came down."""
        if not math.isfinite(score):
            return True
        lowest = min([score, *(probe.score for probe in self._found.values() if probe.score is not None)])
        peak = max((loss for loss in losses if math.isfinite(loss)), default=math.inf)
        return peak - self.first_loss > max(self.first_loss - lowest, 0.0) + 3 * self.ground.noise


def warmed_up(num_steps: int) -> list[float]:
    """Return the shares of the peak of updates: a linear rise over a tenth of them, then the peak."""
    warmup = max(round(_WARMUP_FRAC * num_steps), 1)
    return [min(number / warmup, 1.0) for number in range(1, num_steps + 1)]


def one_cycle(num_steps: int) -> list[float]:
    """Return the shares of the peak of updates: a linear rise over a tenth of them, then a fall to 0."""
    warmup = max(round(_WARMUP_FRAC * num_steps), 1)
    falling = [(num_steps - number) / (num_steps - warmup) for number in range(warmup, num_steps)]
    return warmed_up(num_steps)[:warmup] + falling


def _score(learner: Learner, batches: Sequence[Any]) -> float:
    """Return the mean training loss over the samples of some batches.

    The model stays in training mode: after few updates the running statistics of its norms are still wrong.
    Gradients stay on, for losses that need them.
    """
    total = count = 0.0
    for batch in batches:
        num_samples = count_samples(batch)
        size = learner.micro_batch_size or num_samples
        for start in range(0, num_samples, size):
            part = take_part(batch, start, size, num_samples) if size < num_samples else batch
            loss_sum, part_count = _loss_sum(learner, part, min(size, num_samples - start))
            total, count = total + loss_sum, count + part_count
    return total / count


def _loss_sum(learner: Learner, batch: Any, num_samples: int) -> tuple[float, float]:
    with learner.arithmetic.autocast():
        loss, _ = learner.objective.loss(learner.arithmetic.prepare(batch))
    if isinstance(loss, LossSum):
        return float(loss.total.detach()), float(loss.count)
    return float(loss.detach()) * num_samples, num_samples

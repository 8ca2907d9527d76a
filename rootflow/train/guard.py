"""The last good state of a training, to go back to with half the learning rate where it diverges.

A training has diverged when the gradients of several updates were not finite; when, at an evaluation,
weights are not finite, or the monitored value is not, which was so before; or when the losses of the last
`NUM_RECENT` updates are all high: above three times the mean of the first `NUM_FIRST`, which an explosion
among them does not raise. The last counts only where those were all positive, and only to go back: a
training that was halved as often as it may goes on.
"""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

from torch import Tensor

from rootflow.errors import DivergedError
from rootflow.train.going_on import State, with_halved_lr
from rootflow.train.loop import NUM_FIRST, NUM_RECENT, Position
from rootflow.train.out_of_memory import survive_out_of_memory
from rootflow.train.state import TrainState

_HIGH = 3.0
"""Times the mean loss of the first updates."""
_EXPLODED = 2.0
"""Times the first loss, above which the mean of the first ones is that of an explosion."""
_NUM_DOUBTFUL = 5
"""Updates over whose mean loss it is judged what to save: one odd batch is no reason to lose the rest."""
_LEAST_HIGH = 1.0
"""Below it no loss is high: one that began near 0, with weights of another run, may well rise for a while."""
_PLAIN = (int, float, bool, str, type(None))

_log = logging.getLogger(__name__)


class Guard:
    """Keeps the last good state of a training, and says when to go back to it.

    Args:
        state: of the training; nothing here changes it.
        max_halvings: how often the learning rate may be halved, over all sessions; at 0 nothing is kept.
    """

    def __init__(self, state: TrainState, max_halvings: int) -> None:
        self.max_halvings = max_halvings
        self._state = state
        self._good: State | None = None

    @property
    def can_go_back(self) -> bool:
        """Whether there is a state to go back to, and the learning rate may be halved once more."""
        return self._good is not None and self._state.num_lr_halvings < self.max_halvings

    @property
    def good_state(self) -> State | None:
        """The state that a checkpoint is to hold in place of the present one; None where that is good.

        The end of a training is the end, however its loss is.
        """
        is_over = bool(self._state.stop_reason)
        in_doubt = self.can_go_back and not is_over and self._is_in_doubt(num_losses=_NUM_DOUBTFUL)
        return self._good if in_doubt else None

    def keep(self) -> None:
        """Take a copy of the present state, on the host, for the last good one, unless that is in doubt."""
        if self._state.num_lr_halvings >= self.max_halvings:
            self._good = None
        elif not self._is_in_doubt():
            self._good = None  # before there is another: a model may be half of the memory
            copied = survive_out_of_memory(lambda: _on_host(self._state.state_dict()))
            if isinstance(copied, Exception):
                _log.warning("no copy of the training fits into memory: if it diverges, it ends")
                self.max_halvings = 0
            else:
                self._good = copied

    def halve(self) -> State:
        """Return the last good state with half the learning rate, which is then the one to go back to."""
        assert self._good is not None
        self._good = with_halved_lr(self._good)
        return dict(_on_host(self._good))

    def check(self) -> None:
        """Look whether the loss has long been high; this waits for the device.

        Raises:
            DivergedError: it has, and there is a state to go back to.
        """
        position = self._state.position
        if len(position.recent) == NUM_RECENT and self.can_go_back:
            limit = loss_limit(position)
            if math.isfinite(limit) and not any(float(loss) <= limit for loss in reversed(position.recent)):
                raise DivergedError(f"the loss was above {limit:.3g} in {NUM_RECENT} updates")

    def check_evaluation(self, monitor: str, value: float, *, has_finite_weights: bool) -> None:
        """Judge an evaluation.

        Args:
            monitor: the name of the value.
            value: as it was measured.
            has_finite_weights: whether all weights are finite.

        Raises:
            DivergedError: something isn't finite, and there is a state to go back to.
        """
        if not self.can_go_back:
            return
        if not has_finite_weights:
            raise DivergedError("weights are not finite")
        if not math.isfinite(value) and self._state.best:
            raise DivergedError(f"{monitor} is {value}")

    def _is_in_doubt(self, *, num_losses: int = 1) -> bool:
        """Whether the last losses are high in the mean, or the last gradient is not finite; this waits."""
        if int(self._state.learner.bad_steps) > 0:
            return True
        position = self._state.position
        last = [float(loss) for loss in list(position.recent)[-num_losses:]]
        return len(last) == num_losses and not sum(last) / len(last) <= loss_limit(position)


def loss_limit(position: Position) -> float:
    """Return the loss above which one is high; infinite where the first updates don't tell.

    Until all of those are made, which may be those that diverge, the lowest stands for their mean; and none
    that is far above the first.
    """
    position.first[:] = losses = [float(loss) for loss in position.first]  # from the device once
    if not losses or not all(0 < loss < math.inf for loss in losses):
        return math.inf
    reference = sum(losses) / NUM_FIRST if len(losses) == NUM_FIRST else min(losses)
    reference = min(reference, _EXPLODED * losses[0])
    return max(_HIGH * reference, _LEAST_HIGH)


def _on_host(value: Any) -> Any:
    """Return a copy of a nested state, its tensors on the host."""
    # the commonest first: the state of Python's generator alone is 625 numbers
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_host(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_on_host, value))
    return copy.deepcopy(value)

"""The Protocol of a task; no base class is needed to write one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class LossSum:
    """A loss that isn't a mean over samples: a sum, and what to divide it by, e.g. the tokens not masked.

    Over several micro batches both are added up before the division, so that memory never changes a loss.
    """

    total: Tensor
    count: Tensor


class Task(Protocol):
    """Turns a model's outputs and the targets of a batch into a loss and into measures.

    A task may also have `loss_sum(outputs, targets) -> LossSum`, for a loss that isn't a mean over samples.
    """

    @property
    def monitor(self) -> str:
        """The metric that decides which weights are best, e.g. `val/accuracy`."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of the monitored metric is the better one."""

    def loss(self, outputs: Any, targets: Any) -> Tensor | LossSum:
        """Return what is minimised: a scalar, the mean over the batch's samples."""

    def measure(self, outputs: Any, targets: Any) -> Mapping[str, Tensor | LossSum]:
        """Return sums over the batch's samples: scalars, on the device of the outputs.

        An evaluation adds them up and divides by the number of samples, or by the counts of a `LossSum`, so
        that batches of unequal size give the exact mean. Nothing here may wait for the device.
        """

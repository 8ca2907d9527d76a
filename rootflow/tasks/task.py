"""The Protocol of a task; no base class is needed to write one."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Task(Protocol):
    """Turns a model's outputs and the targets of a batch into a loss and into measures."""

    @property
    def monitor(self) -> str:
        """The metric that decides which weights are best, e.g. `val/accuracy`."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of the monitored metric is the better one."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return what is minimised: a scalar, the mean over the batch's samples."""

    def measure(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """Return sums over the batch's samples: scalars, on the device of the outputs.

        An evaluation adds them up and divides by the number of samples, so that batches of
        unequal size give the exact mean. Nothing here may wait for the device.
        """

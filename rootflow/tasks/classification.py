"""One class out of several for each sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rootflow.errors import RunError
from rootflow.limits import Fraction
from rootflow.registry import register


@register("task", "classification")
class Classification:
    """One class for each sample: cross-entropy, and the share of samples classified rightly.

    Outputs are logits (batch, class); targets are class indices (batch,) of any integer type, or for the
    loss also shares of the classes (batch, class), which mixup and cutmix make of them. The measured
    `loss` is the cross-entropy without smoothing, in nats, so that runs of different smoothing compare.

    Args:
        label_smoothing: share of each target spread evenly over all classes, in the training loss only
    """

    monitor = "val/accuracy"
    higher_is_better = True

    def __init__(self, *, label_smoothing: Fraction = 0.0) -> None:
        self.label_smoothing = label_smoothing
        self._is_range_checked = False

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of the batch, smoothed.

        Raises:
            RunError: outputs and targets don't belong together.
        """
        if _is_soft(targets) and targets.shape == outputs.shape:
            return F.cross_entropy(outputs.float(), targets, label_smoothing=self.label_smoothing)
        self._check(outputs, targets)
        classes = targets if targets.dtype is torch.int64 else targets.long()
        return F.cross_entropy(outputs.float(), classes, label_smoothing=self.label_smoothing)

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the sums of `loss` and `accuracy` over the batch.

        Raises:
            RunError: outputs and targets don't belong together.
        """
        self._check(outputs, targets)
        return {
            "loss": F.cross_entropy(outputs.float(), targets.long(), reduction="sum"),
            "accuracy": (outputs.argmax(dim=1) == targets).sum(),
        }

    def _check(self, outputs: Tensor, targets: Tensor) -> None:
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            raise RunError(
                f"the model returned {type(outputs).__name__} and the targets are {type(targets).__name__}; "
                "classification takes one tensor of each. For more of either give a loss of your own."
            )
        if outputs.ndim != 2 or targets.shape != outputs.shape[:1]:
            raise RunError(
                f"the model's outputs have shape {_shape(outputs)} and the targets {_shape(targets)}; "
                "classification needs outputs (batch, class) and targets (batch,)."
            )
        if targets.is_floating_point():
            raise RunError(
                f"the targets are {targets.dtype}; classification needs class indices, which are whole "
                "numbers. For numbers to predict, set task=regression."
            )
        if not self._is_range_checked:
            self._check_range(targets, outputs.shape[1])
            self._is_range_checked = True

    def _check_range(self, targets: Tensor, num_classes: int) -> None:
        """Look at the first batch only: reading targets waits for the device.

        On CUDA a target out of range would otherwise end the process's context without saying why.
        """
        lowest, highest = (int(value) for value in torch.aminmax(targets))
        if lowest < 0 or highest >= num_classes:
            raise RunError(
                f"the targets run from {lowest} to {highest}, but the model has {num_classes} outputs, for "
                f"the classes 0 to {num_classes - 1}. Set model.num_classes to the number of classes."
            )


def _is_soft(targets: Tensor) -> bool:
    """Whether targets are shares of classes (batch, class), as mixing samples makes them."""
    return isinstance(targets, Tensor) and targets.ndim == 2 and targets.is_floating_point()


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))

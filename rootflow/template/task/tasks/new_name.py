"""What is minimised and what is measured."""

from __future__ import annotations

import torch.nn.functional as F
from rootflow import register
from rootflow.limits import Fraction
from torch import Tensor


@register(name="new_name")
class NewName:
    """One class for each sample; also measures how often it is among the best two.

    Outputs are logits (batch, class), targets are classes (batch,).

    Args:
        label_smoothing: share of each target spread over all classes, while training
    """

    # The best weights of a run are those with the highest value of this.
    monitor = "val/accuracy"
    higher_is_better = True

    def __init__(self, *, label_smoothing: Fraction = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what is minimised: the mean over the batch."""
        # In float32, because a model that computes in bfloat16 gives that.
        return F.cross_entropy(
            outputs.float(), targets.long(), label_smoothing=self.label_smoothing
        )

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return sums over the batch; rootflow makes them means over all batches."""
        best_two = outputs.topk(2, dim=1).indices  # (batch, 2)
        return {
            "loss": F.cross_entropy(outputs.float(), targets.long(), reduction="sum"),
            "accuracy": (best_two[:, 0] == targets).sum(),
            "accuracy_of_two": (best_two == targets[:, None]).sum(),
        }

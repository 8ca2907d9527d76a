"""A small network for any data: numbers in, one number out for each class."""

from __future__ import annotations

from rootflow import register
from rootflow.limits import Fraction, PositiveInt
from torch import Tensor, nn


@register(name="new_name")
class NewName(nn.Module):
    """Two hidden layers.

    Args:
        in_features: numbers in one sample; the data set fills it
        num_classes: outputs; the data set fills it
        width: units of each hidden layer
        dropout: share of hidden units dropped while training
    """

    # Each parameter is a key: model.width=32. Its type says what is allowed, its line
    # above what it means; `rootflow list model new_name` shows both.
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        width: PositiveInt = 64,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_features, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, num_classes),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (batch, num_classes): no softmax, the loss has it."""
        logits: Tensor = self.layers(inputs)
        return logits

"""A multilayer perceptron, for tables and for small images taken as rows of numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from rootflow.limits import Fraction, PositiveInt
from rootflow.registry import register

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


@register("model", "mlp")
class MLP(nn.Module):
    """Multilayer perceptron on the flattened input.

    Takes (batch, ...) with `in_features` numbers a sample; gives logits (batch, num_classes).

    Args:
        in_features: numbers in one sample, over all its dimensions
        num_classes: outputs
        hidden: units of each hidden layer; [] makes a linear model
        dropout: share of hidden units dropped while training
        activation: function after each hidden layer
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden: tuple[PositiveInt, ...] = (256, 128),
        dropout: Fraction = 0.0,
        activation: Literal["relu", "gelu", "silu", "tanh"] = "relu",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise((in_features, *hidden)):
            layers += [nn.Linear(width_in, width_out), _ACTIVATIONS[activation](), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1] if hidden else in_features, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (batch, num_classes)."""
        logits: Tensor = self.head(self.hidden(inputs.flatten(1)))
        return logits

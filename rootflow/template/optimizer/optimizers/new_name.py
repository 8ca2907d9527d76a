"""Steps along the sign of the momentum: signSGD (Bernstein et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from rootflow import register
from rootflow.limits import Fraction, PositiveFloat
from torch import Tensor
from torch.optim import Optimizer


@register(name="new_name")
class NewName(Optimizer):
    """Gradient descent by the sign of the momentum.

    Args:
        params: rootflow passes the model's parameters
        lr: length of each step, for every single weight
        momentum: share of the old momentum kept in each update
    """

    # One with a parameter `weight_decay` gets groups, in which biases have none.
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: PositiveFloat = 0.001,
        momentum: Fraction = 0.9,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, lr=group["lr"], momentum=group["momentum"])
        return loss

    def _update(self, parameter: Tensor, *, lr: float, momentum: float) -> None:
        state = self.state[parameter]
        if not state:
            state["average"] = torch.zeros_like(parameter)
        state["average"].lerp_(parameter.grad, 1 - momentum)
        parameter.add_(state["average"].sign(), alpha=-lr)

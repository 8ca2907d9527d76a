"""Muon for the hidden matrices of a model, AdamW for the rest, in one optimizer.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"
(kellerjordan.github.io/posts/muon): momentum, made orthogonal by a Newton-Schulz iteration. Liu et
al. 2025, "Muon is Scalable for LLM Training", arXiv 2502.16982, scales its updates to the
size of AdamW's, so that both parts share one learning rate.

`torch.optim.Muon` takes 2-D parameters only. This one also takes convolutions, a kernel being one
row of a matrix; on 2-D parameters its updates are those of `torch.optim.Muon`, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from rootflow.limits import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from rootflow.optim.parameter_groups import parameter_groups
from rootflow.registry import register

_MATRIX_MODULES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, chosen by Jordan for the steepest slope at zero."""


@register("optimizer", "muon")
def muon(
    model: nn.Module,
    *,
    lr: PositiveFloat = 1e-3,
    weight_decay: NonNegativeFloat = 0.1,
    momentum: Fraction = 0.95,
    num_iterations: PositiveInt = 5,
) -> MuonWithAdamW:
    """Muon for hidden matrices and convolutions, AdamW for the head, biases, norms and embeddings.

    Args:
        model: its trainable parameters are optimized
        lr: learning rate of both parts, in the units of AdamW
        weight_decay: decoupled decay of both parts; biases, norms and embeddings are spared
        momentum: share of the old momentum kept in each update
        num_iterations: Newton-Schulz iterations an update
    """
    hidden = hidden_matrices(model)
    chosen = {id(p) for p in hidden}
    groups: list[dict[str, Any]] = [{"params": hidden, "weight_decay": weight_decay, "is_muon": True}]
    for group in parameter_groups(model, weight_decay=weight_decay):
        rest = [p for p in group["params"] if id(p) not in chosen]
        groups.append(group | {"params": rest, "is_muon": False})
    groups = [group for group in groups if group["params"]]
    return MuonWithAdamW(groups, lr=lr, momentum=momentum, num_iterations=num_iterations)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """Return the trainable weights of the linear layers and convolutions, except the last layer's.

    The last one registered is taken to be the head, which Jordan leaves to AdamW, like embeddings.
    """
    layers = [m for m in model.modules() if isinstance(m, _MATRIX_MODULES)]
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    weights = {id(layer.weight): layer.weight for layer in layers}  # a shared weight once
    spared = embedded | {id(layer.weight) for layer in layers[-1:]}
    return [w for key, w in weights.items() if w.requires_grad and key not in spared]


class MuonWithAdamW(Optimizer):
    """One optimizer whose groups are updated by Muon where `is_muon`, by AdamW elsewhere.

    Args:
        groups: parameter groups with `params`, `weight_decay` and `is_muon`
        lr: learning rate
        momentum: share of the old momentum kept in each update
        num_iterations: Newton-Schulz iterations an update
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float = 1e-3,
        momentum: float = 0.95,
        num_iterations: int = 5,
    ) -> None:
        # AdamW fills its own settings into the very dicts that become our groups. It gets all of
        # them, since an optimizer can't be empty; `step` leaves it those that are its own.
        self._adamw = AdamW(groups, lr=lr)
        super().__init__(groups, {"lr": lr, "momentum": momentum, "num_iterations": num_iterations})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; evaluate the closure once, before.

        Returns:
            What the closure returned; None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["is_muon"]:
                self._update(group)
        # Loading a state replaces both, so the inner optimizer is given them anew.
        self._adamw.param_groups = [group for group in self.param_groups if not group["is_muon"]]
        self._adamw.state = self.state
        self._adamw.step()
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            average = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
            update = parameter.grad.lerp(average, group["momentum"])  # Nesterov's
            matrix = orthogonalise(update.flatten(1), num_iterations=group["num_iterations"])
            scale = 0.2 * math.sqrt(max(matrix.shape))  # the size of AdamW's updates: Liu et al.
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(matrix.view(update.shape), alpha=-group["lr"] * scale)


def orthogonalise(matrix: Tensor, *, num_iterations: int = 5) -> Tensor:
    """Return about the nearest semi-orthogonal matrix, in bfloat16, by Newton-Schulz iterations.

    The singular values become numbers from about 0.5 to 1.5, which is as good in practice (Jordan).

    Args:
        matrix: of shape (row, column).
        num_iterations: each makes small singular values 3.4 times larger, five of them 485 times.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    result = matrix.bfloat16().T if is_tall else matrix.bfloat16()
    result = result / result.norm().clamp(min=1e-7)  # the spectral norm is then at most 1
    for _ in range(num_iterations):
        gram = result @ result.T
        result = torch.addmm(result, torch.addmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return result.T if is_tall else result

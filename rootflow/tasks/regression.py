"""One or several numbers for each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from rootflow.errors import ConfigError, RunError
from rootflow.limits import PositiveFloat
from rootflow.registry import register

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "huber": F.huber_loss,
    "l1": F.l1_loss,
}


@register("task", "regression")
class Regression:
    """Numbers for each sample: the model predicts them standardised, `(target - mean) / std`.

    Outputs and targets are (batch,), (batch, 1) or (batch, number). Measured are the `loss` that is
    minimised, and `mse` and `mae` in the targets' own units.

    Args:
        target_mean: mean of the targets of the training data
        target_std: standard deviation of the targets of the training data
        loss: what is minimised, on standardised targets; huber is squared up to 1, then linear

    Raises:
        ConfigError: the standard deviation isn't above 0.
    """

    monitor = "val/loss"
    higher_is_better = False

    def __init__(
        self,
        target_mean: float,
        target_std: PositiveFloat,
        *,
        loss: Literal["mse", "huber", "l1"] = "mse",
    ) -> None:
        if not target_std > 0:
            raise ConfigError(
                f"task.target_std is {target_std}; it must be above 0. "
                "It is 0 when all targets are the same number: there is nothing to learn then."
            )
        self.target_mean = target_mean
        self.target_std = target_std
        self._loss = _LOSSES[loss]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of the batch, on standardised targets.

        Raises:
            RunError: outputs and targets don't belong together.
        """
        return self._loss(*self._standardised(outputs, targets))

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the sums of `loss`, `mse` and `mae` over the batch's samples.

        Raises:
            RunError: outputs and targets don't belong together.
        """
        predicted, wanted = self._standardised(outputs, targets)
        num_samples = len(wanted)
        return {
            "loss": self._loss(predicted, wanted) * num_samples,
            "mse": F.mse_loss(predicted, wanted) * (num_samples * self.target_std**2),
            "mae": F.l1_loss(predicted, wanted) * (num_samples * self.target_std),
        }

    def _standardised(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return both in float32 and of one shape: (batch,) against (batch, 1) would broadcast."""
        if outputs.numel() != targets.numel() or outputs.shape[:1] != targets.shape[:1]:
            raise RunError(
                f"the model's outputs have shape {tuple(outputs.shape)} and the targets "
                f"{tuple(targets.shape)}; regression needs as many outputs as there are numbers to predict."
            )
        # Shifted in the targets' own format: float32 would lose digits of a large mean.
        wanted = ((targets - self.target_mean) / self.target_std).float()
        return outputs.float().reshape(wanted.shape), wanted

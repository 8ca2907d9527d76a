"""Any loss function as a task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rootflow.errors import ConfigError, did_you_mean
from rootflow.tasks.task import LossSum

_NAMES = [name for name in vars(F) if name.endswith(("_loss", "cross_entropy"))]


class LossTask:
    """Minimises `loss(outputs, targets)`, or `loss(outputs, y, w)` where there are several targets.

    Micro batches and uneven batches of an evaluation are exact for means over the samples; for torch's
    cross_entropy and nll_loss, by name, as a function, a module or a `functools.partial` with keywords,
    also where they mask or weigh targets; and for whatever returns a `LossSum`. Any other loss that divides
    by what counts of a batch, such as a lambda around a masked one, is exact on whole batches only: let it
    return `LossSum(total, count)`.

    Args:
        loss: a function, module or module class that returns the mean over the samples, or the name of one in
            `torch.nn.functional`, e.g. `cross_entropy`. It may return a dict with `loss` and its parts, or
            `(loss, parts)`; the parts are logged and measured beside it.

    Raises:
        ConfigError: there is no loss of that name.
    """

    monitor = "val/loss"
    higher_is_better = False

    def __init__(self, loss: Callable[..., Any] | str) -> None:
        if isinstance(loss, str) and loss not in _NAMES:
            raise ConfigError(
                f"there is no loss {loss!r} in torch.nn.functional.{did_you_mean(loss, _NAMES)}"
            )
        given = getattr(F, loss) if isinstance(loss, str) else loss
        self._loss: Callable[..., Any] = given() if isinstance(given, type) else given
        called, _ = _unwrapped(self._loss)
        self.title = getattr(called, "__qualname__", None) or type(called).__name__
        if _Masked.of(self._loss) is not None:
            self.loss_sum = self._loss_sum

    def loss(self, outputs: Any, targets: Any) -> Any:
        """Return the loss of a batch, as the function returns it."""
        found = self._loss(outputs, *targets) if isinstance(targets, tuple) else self._loss(outputs, targets)
        return found if isinstance(found, LossSum) else cast("Tensor", found)

    def measure(self, outputs: Any, targets: Any) -> dict[str, Tensor | LossSum]:
        """Return the loss, and the numbers that came beside it, times the number of samples."""
        if _Masked.of(self._loss) is not None:
            return {"loss": self._loss_sum(outputs, targets)}
        loss = self.loss(outputs, targets)
        if isinstance(loss, LossSum):
            return {"loss": loss}
        first = targets[0] if isinstance(targets, tuple) else targets
        return {name: value.detach() * len(first) for name, value in _parts(loss).items()}

    def _loss_sum(self, outputs: Tensor, targets: Tensor) -> LossSum:
        masked = _Masked.of(self._loss)  # anew, for a module's weights may have moved to a device
        assert masked is not None
        return masked.loss_sum(outputs, targets)


def _parts(loss: Any) -> dict[str, Tensor]:
    """Return the scalars of what a loss function returned, the loss first."""
    if isinstance(loss, tuple):
        loss = {"loss": loss[0], **loss[1]}
    if not isinstance(loss, Mapping):
        return {"loss": loss}
    numbers = {name: value for name, value in loss.items() if isinstance(value, Tensor | int | float)}
    return {name: torch.as_tensor(value) for name, value in numbers.items()}


@dataclass(frozen=True)
class _Masked:
    """A loss of torch that divides by what counts of a batch rather than by its samples."""

    is_log: bool
    """Whether it takes log-probabilities, as nll_loss does."""
    weight: Tensor | None = None
    ignore_index: int = -100
    label_smoothing: float = 0.0

    @classmethod
    def of(cls, loss: Any) -> Self | None:
        """Return how a loss divides; None where it isn't one of those, or is no mean."""
        called, given = _unwrapped(loss)
        if isinstance(called, nn.CrossEntropyLoss | nn.NLLLoss) and not given:
            given = {name: getattr(called, name, None) for name in (*_SETTINGS, "reduction")}
        elif called not in (F.cross_entropy, F.nll_loss):
            return None
        if given.get("reduction", "mean") != "mean" or not given.keys() <= {*_SETTINGS, "reduction"}:
            return None
        settings = {name: given[name] for name in _SETTINGS if given.get(name) is not None}
        return cls(called is F.nll_loss or isinstance(called, nn.NLLLoss), **settings)

    def loss_sum(self, outputs: Tensor, targets: Tensor) -> LossSum:
        """Return the loss as a sum over the targets that count, each with its class's weight."""
        settings: dict[str, Any] = {"ignore_index": self.ignore_index, "reduction": "sum"}
        if self.is_log:
            total = F.nll_loss(outputs, targets, self.weight, **settings)
        else:
            smoothing = self.label_smoothing
            total = F.cross_entropy(outputs, targets, self.weight, label_smoothing=smoothing, **settings)
        return LossSum(total, self._count(targets))

    def _count(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point():  # probabilities of classes: a mean over samples
            return targets.new_tensor(targets.numel() / targets.shape[1])
        valid = targets != self.ignore_index
        if self.weight is None:
            return valid.sum()
        return (self.weight[targets.where(valid, 0)] * valid).sum()


_SETTINGS = ("weight", "ignore_index", "label_smoothing")


def _unwrapped(loss: Any) -> tuple[Any, dict[str, Any]]:
    """Return what a `functools.partial` calls, and with which keywords; of anything else itself."""
    if isinstance(loss, functools.partial) and not loss.args:
        return loss.func, loss.keywords
    return loss, {}

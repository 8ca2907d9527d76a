"""What happens to a batch on the device before it is handed on."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from rootflow.data.samples import inputs_and_targets, with_inputs_and_targets


class Transform(Protocol):
    """Turns the inputs of a batch into what the model takes; `rootflow.data.augment.Preprocess` is one.

    It may have two more attributes. `is_fixed` says that a sample comes out the same in every epoch and
    batch. `mix` is a `Mix`, or None.
    """

    def __call__(self, inputs: Tensor, *, index: Tensor, epoch: int) -> Tensor:
        """Return the inputs, given each sample's position in the data set and the epoch."""


class Mix(Protocol):
    """Mixes the samples of a batch with one another; `rootflow.data.mix.MixSamples` is one."""

    def __call__(self, inputs: Any, targets: Any, *, epoch: int, batch: int) -> tuple[Any, Any]:
        """Return inputs and targets, or raise, given the number of the batch in its epoch."""


class BatchTransform:
    """A transform, applied to the inputs in a batch of any structure; inputs that are no tensor stay."""

    def __init__(self, transform: Transform | None) -> None:
        self.of_samples = transform
        self.mix: Mix | None = getattr(transform, "mix", None)

    def __bool__(self) -> bool:
        return self.of_samples is not None or self.mix is not None

    def __call__(self, batch: Any, *, index: Tensor, epoch: int, number: int) -> Any:
        """Return the batch, structured as it was.

        Args:
            batch: as its data set makes it, on the device.
            index: position of each sample in its data set, on the device.
            epoch: the pass that the batch is of.
            number: of the batch in its epoch, from 0.
        """
        inputs, targets = inputs_and_targets(batch)
        is_tensor = isinstance(inputs, Tensor)
        if self.of_samples is not None and is_tensor:
            inputs = self.of_samples(inputs, index=index, epoch=epoch)
        if self.mix is not None:
            inputs, targets = self.mix(inputs, targets, epoch=epoch, batch=number)
        return with_inputs_and_targets(batch, inputs, targets) if is_tensor else batch

"""What a data set tells about itself: shapes, classes, and the scale of its numbers.

These facts fill the parameters of models and tasks that are left to `auto`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rootflow.data.samples import (
    as_tensor,
    as_tensor_dataset,
    find_class_names,
    find_num_classes,
    find_targets,
    inputs_and_targets,
    num_samples,
    read_classes,
    read_samples,
)
from rootflow.data.splits import Splits
from rootflow.errors import DataError

_MAX_SAMPLES_READ = 2000
"""Samples from which means are taken when they can only be had one by one."""

_CHUNK_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Facts about a data set; None where there is nothing to tell."""

    input_shape: tuple[int, ...] | None
    """Of one sample: (channel, height, width), (features,)."""
    in_channels: int | None
    in_features: int | None
    """Numbers in one sample."""
    num_classes: int | None
    class_names: tuple[str, ...] | None
    target: Literal["class", "number", "none"]
    mean: tuple[float, ...] | None
    """Of the training inputs, with uint8 as 0..1: each channel, each feature, or one for all."""
    std: tuple[float, ...] | None
    """Likewise; 1 where an input is constant, so that it can be divided by."""
    num_targets: int | None
    """Numbers to predict for each sample; None for classes."""
    target_mean: float | None
    target_std: float | None
    num_train: int
    num_val: int
    num_test: int


def describe(splits: Splits) -> DataFacts:
    """Return the facts about a data set, from its training part.

    Means are exact and over the whole training part for a `TensorDataset`; over at most 2,000 evenly
    spaced samples for any other data set. Reading samples moves no random generator.

    Raises:
        DataError: samples of a kind that no model takes, of unequal shapes, with NaN or infinities, or
            with classes outside the range.
    """
    train = splits.train
    inputs, target = inputs_and_targets(next(read_samples(train, range(1))))
    shape = (
        None
        if isinstance(inputs, dict | tuple | list)
        else tuple(as_tensor(inputs, "the input of sample 0").shape)
    )
    kind = _kind_of(target)
    moments, target_moments = _measure(train, has_inputs=shape is not None, has_numbers=kind == "number")
    num_classes = _count_classes(splits) if kind == "class" else None
    return DataFacts(
        input_shape=shape,
        in_channels=shape[0] if shape is not None and len(shape) == 3 else None,
        in_features=math.prod(shape) if shape is not None else None,
        num_classes=num_classes,
        class_names=(splits.class_names or find_class_names(train)) if kind == "class" else None,
        target=kind,
        mean=moments.mean if moments else None,
        std=moments.std if moments else None,
        num_targets=as_tensor(_first(target), "the target of sample 0").numel() if kind == "number" else None,
        target_mean=target_moments.mean[0] if target_moments else None,
        target_std=target_moments.std[0] if target_moments else None,
        num_train=num_samples(train),
        num_val=num_samples(splits.val) if splits.val is not None else 0,
        num_test=num_samples(splits.test) if splits.test is not None else 0,
    )


def _kind_of(target: Any) -> Literal["class", "number", "none"]:
    """Tell classes from numbers by the type; of several targets the first counts."""
    target = _first(target)
    if target is None or isinstance(target, dict):
        return "none"
    return "number" if as_tensor(target, "the target of sample 0").is_floating_point() else "class"


def _count_classes(splits: Splits) -> int:
    known = splits.num_classes or (
        len(splits.class_names) if splits.class_names else find_num_classes(splits.train)
    )
    if known is None:
        classes = find_targets(splits.train)
        classes = read_classes(splits.train) if classes is None else classes
        known = int(classes.max()) + 1 if classes is not None else 0
    for name in ("train", "val", "test"):
        part = getattr(splits, name)
        targets = find_targets(part) if part is not None else None
        if targets is not None and not (int(targets.min()) >= 0 and int(targets.max()) < known):
            raise DataError(
                f"the {name} targets go from {int(targets.min())} to {int(targets.max())}, but there are "
                f"{known} classes, 0 to {known - 1}. Number the classes from 0, or correct num_classes."
            )
    return known


CONSTANT_BELOW = 1e-9
"""A standard deviation below this share of the mean is what rounding leaves of a constant."""


class Moments:
    """Mean and standard deviation of each channel, gathered batch by batch in float64.

    Batches are merged by the formula of Chan, Golub & LeVeque (1979), which loses no digits where the mean
    is far from zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._sum_of_squares = torch.zeros(1, dtype=torch.float64)

    def add(self, batch: Tensor) -> None:
        """Take in a batch: (batch, channel, height, width), (batch, feature), or anything as one."""
        count, mean, sum_of_squares = _channel_moments(batch)
        total = self.count + count
        difference = mean - self._mean
        self._mean = self._mean + difference * (count / total)
        self._sum_of_squares = (
            self._sum_of_squares + sum_of_squares + difference.square() * (self.count * count / total)
        )
        self.count = total

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of each channel."""
        return tuple(self._mean.tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation of each channel, of the population; 1 where it is 0 but for rounding."""
        std = (self._sum_of_squares / self.count).sqrt()
        return tuple(std.where(std > CONSTANT_BELOW * self._mean.abs(), 1.0).tolist())


def _channel_moments(batch: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return the number of values of a channel, their mean, and the sum of squares about it."""
    by_channel = batch.transpose(0, 1).flatten(1) if batch.ndim in (2, 4) else batch.reshape(1, -1)
    count = by_channel.shape[1]
    if batch.dtype == torch.uint8:  # counting the 256 levels is exact and 20 times as fast
        levels = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.stack([torch.bincount(channel, minlength=256) for channel in by_channel]).double()
        mean = counts @ levels / count
        return count, mean, (counts * (levels - mean[:, None]).square()).sum(1)
    values = by_channel.double()
    mean = values.mean(1)
    return count, mean, (values - mean[:, None]).square().sum(1)


def _measure(
    train: Dataset[Any], *, has_inputs: bool, has_numbers: bool
) -> tuple[Moments | None, Moments | None]:
    """Return the moments of inputs and of targets; None for what isn't a measured quantity."""
    of_inputs, of_targets = Moments(), Moments()
    for inputs, targets in _batches(train):
        if has_inputs and (inputs.dtype == torch.uint8 or inputs.is_floating_point()):
            _add(of_inputs, inputs, "inputs")
        if has_numbers:
            _add(of_targets, _first(targets).reshape(-1), "targets")
    return of_inputs if of_inputs.count else None, of_targets if of_targets.count else None


def _add(moments: Moments, batch: Tensor, what: str) -> None:
    moments.add(batch)
    if not all(map(math.isfinite, moments.mean)):
        raise DataError(f"the training {what} hold NaN or infinite numbers. Remove or replace them.")


def _batches(train: Dataset[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield inputs and targets of many samples as tensors; inputs that aren't tensors as they are."""
    tensors = as_tensor_dataset(train)
    if tensors is not None:
        size = max(1, _CHUNK_BYTES // max(1, tensors.tensors[0][0].nbytes))
        for start in range(0, num_samples(tensors), size):
            yield inputs_and_targets(tuple(tensor[start : start + size] for tensor in tensors.tensors))
        return
    count = min(num_samples(train), _MAX_SAMPLES_READ)
    evenly = [index * num_samples(train) // count for index in range(count)]
    shape = None
    for index, sample in zip(evenly, read_samples(train, evenly), strict=True):
        inputs, targets = inputs_and_targets(sample)
        if not isinstance(inputs, dict | tuple | list):
            inputs = as_tensor(inputs, f"the input of sample {index}")[None]
            shape = shape or inputs.shape
            _check_shape(inputs, shape, index)
        yield inputs, None if targets is None else as_tensor(_first(targets), f"the target of sample {index}")


def _check_shape(inputs: Tensor, expected: torch.Size, index: int) -> None:
    if inputs.shape != expected:
        raise DataError(
            f"sample {index} has shape {tuple(inputs.shape[1:])} and sample 0 has {tuple(expected[1:])}; all "
            "must have the same. Crop, resize or pad them in __getitem__."
        )


def _first(targets: Any) -> Any:
    """Of several targets, such as a class and a weight, return the first."""
    return targets[0] if isinstance(targets, tuple) else targets

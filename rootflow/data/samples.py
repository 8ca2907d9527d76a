"""What a sample is, and what can be learned about a data set's targets, for any kind of data set.

A sample is `(inputs,)`, `(inputs, targets)`, `(inputs, targets, more...)`, a mapping with a key such as
`label`, or the inputs alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from rootflow.data.randomness import keep_generators, seed_generators
from rootflow.errors import DataError

TARGET_KEYS = ("target", "targets", "label", "labels", "y")


def inputs_and_targets(sample: Any) -> tuple[Any, Any]:
    """Return the two halves of a sample; the targets are None where it has none.

    What stands beside inputs and targets in a tuple goes with the targets: `(x, y, w)` gives
    `x, (y, w)`. A mapping gives up its target; if one key is left, its value is the inputs.
    """
    if isinstance(sample, Mapping):
        found = [key for key in TARGET_KEYS if key in sample]
        rest = {key: value for key, value in sample.items() if key not in found[:1]}
        inputs = next(iter(rest.values())) if len(rest) == 1 else rest
        return inputs, sample[found[0]] if found else None
    if isinstance(sample, tuple | list):
        inputs, *others = sample
        return inputs, others[0] if len(others) == 1 else tuple(others) or None
    return sample, None


def with_inputs_and_targets(sample: Any, inputs: Any, targets: Any) -> Any:
    """Return a sample, or a batch, with other halves than those that `inputs_and_targets` tells of it."""
    if isinstance(sample, Mapping):
        found = [key for key in TARGET_KEYS if key in sample][:1]
        rest = [key for key in sample if key not in found]
        halves = {rest[0]: inputs} if len(rest) == 1 else dict(inputs)
        return {**sample, **halves, **dict.fromkeys(found, targets)}
    if isinstance(sample, tuple | list):
        others = (targets,) if len(sample) == 2 else targets or ()
        kind = type(sample)
        return kind(inputs, *others) if hasattr(sample, "_fields") else kind((inputs, *others))
    return inputs


def as_tensor_dataset(dataset: Dataset[Any]) -> TensorDataset | None:
    """Return the data set as tensors that can be indexed by many positions at once; None if it isn't.

    A subclass of `TensorDataset` isn't: its own `__getitem__` would be passed by.
    """
    if type(dataset) is TensorDataset:
        return dataset
    if type(dataset) is Subset and (whole := as_tensor_dataset(dataset.dataset)) is not None:
        return take(whole, torch.as_tensor(dataset.indices))
    return None


def take(dataset: TensorDataset, indices: Tensor) -> TensorDataset:
    """Return the samples at some positions, copied once."""
    return TensorDataset(*(tensor.index_select(0, indices) for tensor in dataset.tensors))


def read_samples(dataset: Dataset[Any], indices: Iterable[int]) -> Iterator[Any]:
    """Yield samples; random transforms in them draw the same each time, and no generator is moved."""
    for index in indices:
        with keep_generators():
            seed_generators(index)
            sample = dataset[index]
        yield sample


def find_targets(dataset: Dataset[Any]) -> Tensor | None:
    """Return all targets if they can be had without loading a sample, else None."""
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1] if len(dataset.tensors) > 1 else None
    if isinstance(dataset, Subset):
        targets = find_targets(dataset.dataset)
        return None if targets is None else targets[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [find_targets(part) for part in dataset.datasets]
        found = [part for part in parts if part is not None]
        return torch.cat(found) if len(found) == len(parts) else None
    for name in ("targets", "labels"):
        found_here = _numbers(getattr(dataset, name, None))
        if found_here is not None and len(found_here) == num_samples(dataset):
            return found_here
    return None


def read_classes(dataset: Dataset[Any]) -> Tensor | None:
    """Return the class of every sample, reading through the data set if need be.

    None where the targets aren't one whole number for each sample.
    """
    targets = find_targets(dataset)
    if targets is None and _is_class(next(read_samples(dataset, range(1)))):
        every = read_samples(dataset, range(num_samples(dataset)))
        targets = torch.tensor([int(inputs_and_targets(sample)[1]) for sample in every])
    if targets is None or targets.ndim != 1 or targets.is_floating_point():
        return None
    return targets.long()


def find_num_classes(dataset: Dataset[Any]) -> int | None:
    """Return what the data set itself says of its classes, also from behind a `Subset`."""
    for holder in _unwrapped(dataset):
        for name in ("num_classes", "classes"):
            value = getattr(holder, name, None)
            value = value() if callable(value) else value
            if value is not None:
                return value if isinstance(value, int) else len(value)
    return None


def find_class_names(dataset: Dataset[Any]) -> tuple[str, ...] | None:
    """Return the data set's `classes`, also from behind a `Subset`, if they are names."""
    for holder in _unwrapped(dataset):
        names = getattr(holder, "classes", None)
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def num_samples(dataset: Dataset[Any]) -> int:
    """Return `len(dataset)`; torch's `Dataset` doesn't declare it."""
    return len(dataset)  # type: ignore[arg-type]


def as_tensor(value: Any, what: str) -> Tensor:
    """Return a number or array as a tensor.

    Raises:
        DataError: it is something else.
    """
    found = _numbers(value)
    if found is None:
        raise DataError(
            f"{what} is {type(value).__name__} {str(value)[:60]!r}; a data set must return tensors, arrays, "
            "numbers or dicts of them. Convert it in __getitem__ (for an image: torchvision's ToTensor)."
        )
    return found


def _numbers(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray | np.generic | int | float | list | tuple):
        return None
    try:
        return torch.from_numpy(np.array(value))
    except (TypeError, ValueError):  # strings, objects, rows of unequal length
        return None


def _is_class(sample: Any) -> bool:
    target = _numbers(inputs_and_targets(sample)[1])
    return target is not None and target.numel() == 1 and not target.is_floating_point()


def _unwrapped(dataset: Any) -> Iterator[Any]:
    while dataset is not None:
        yield dataset
        dataset = getattr(dataset, "dataset", None)

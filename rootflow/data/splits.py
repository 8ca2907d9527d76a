"""Three disjoint parts of a data set: to train on, to choose by, to judge by.

A split is a function of the data's size, its classes and `Split.seed`: the same in every run and
process, whatever the run's own seed is. Classes keep their shares in each part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from rootflow.data.augment import Augment
from rootflow.data.randomness import hash_ints
from rootflow.data.samples import (
    as_tensor_dataset,
    find_class_names,
    find_num_classes,
    num_samples,
    read_classes,
    take,
)
from rootflow.errors import DataError, did_you_mean
from rootflow.limits import Fraction, NonNegativeInt

_PARTS = ("train", "val", "test")
_OTHER_NAMES = {"valid": "val", "validation": "val"}


@dataclass(frozen=True, kw_only=True)
class Split:
    """How much of the data is held out of training."""

    val_frac: Fraction = 0.1
    """share of the training data held out for validation"""

    test_frac: Fraction = 0.2
    """share held out for the test, when the publisher made no test set"""

    seed: NonNegativeInt = 0
    """seed of the split, apart from the run's seed, so that seeds compare on the same data"""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A data set in its parts, with what its publisher knows about it."""

    train: Dataset[Any]
    val: Dataset[Any] | None = None
    test: Dataset[Any] | None = None
    num_classes: int | None = None
    """None: found in the data set or its targets."""
    class_names: tuple[str, ...] | None = None
    augment: Augment | None = None
    """Applied in training."""
    normalize: bool = True
    """Whether inputs are to be brought to mean 0 and standard deviation 1 of the training data."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Where the data came from and how it was split, as JSON; `split` in it marks a finished split."""


def split_dataset(data: Any, *, split: Split = Split()) -> Splits:
    """Return the data in parts, holding out of the training data what is missing.

    Args:
        data: a `Splits`; a mapping with `train` and perhaps `val` and `test`; a tuple
            `(train, val, test)` that may be shorter; or one data set with `len()` and indexing.
        split: how much to hold out, and by which seed.

    Raises:
        DataError: the data is none of these, or too small to be split like this.
    """
    splits = _as_splits(data)
    if "split" in splits.record:
        return splits
    whole = splits.train
    fracs = {"test": split.test_frac, "val": split.val_frac}
    missing = [name for name in ("test", "val") if getattr(splits, name) is None and fracs[name] > 0]
    indices = {"train": torch.arange(num_samples(whole))}
    classes = read_classes(whole) if missing else None
    for name in missing:
        seed = hash_ints(split.seed, _PARTS.index(name))
        indices["train"], indices[name] = _hold_out(
            indices["train"], classes, frac=fracs[name], seed=seed, name=name
        )
    parts: dict[str, Any] = (
        {name: _part(whole, chosen) for name, chosen in indices.items()} if missing else {}
    )
    splits = replace(splits, **parts)
    return replace(
        splits,
        num_classes=splits.num_classes or find_num_classes(whole) or _count_classes(classes),
        class_names=splits.class_names or find_class_names(whole),
        record={**splits.record, "split": _record(splits, split, indices if missing else {})},
    )


def _as_splits(data: Any) -> Splits:
    splits = data if isinstance(data, Splits) else Splits(**_as_mapping(data))
    for name in _PARTS:
        if name == "train" or getattr(splits, name) is not None:
            _check_indexable(name, getattr(splits, name))
    return splits


def _as_mapping(data: Any) -> dict[str, Any]:
    if isinstance(data, tuple):
        if not 1 <= len(data) <= len(_PARTS):
            raise DataError(
                f"the data set is a tuple of {len(data)}; rootflow takes (train, val, test), or the first "
                "one or two of them."
            )
        return dict(zip(_PARTS, data, strict=False))
    if not isinstance(data, Mapping):
        return {"train": data}
    parts = {_OTHER_NAMES.get(str(name), str(name)): part for name, part in data.items()}
    unknown = [name for name in parts if name not in _PARTS]
    if unknown or "train" not in parts:
        raise DataError(
            f"the data set's parts are {', '.join(parts) or 'none'}; rootflow takes train, and perhaps val "
            f"and test.{did_you_mean(unknown[0], _PARTS) if unknown else ''}"
        )
    return parts


def _check_indexable(name: str, part: Any) -> None:
    kind = type(part).__name__
    if isinstance(part, IterableDataset) or not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
        raise DataError(
            f"the {name} data is a {kind}; rootflow needs len() and indexing. Return a data set with __len__ "
            "and __getitem__ (of a DataLoader, its .dataset: rootflow makes the loaders)."
        )
    if len(part) == 0:
        raise DataError(f"the {name} data ({kind}) has 0 samples; it needs at least 1.")


def _hold_out(
    indices: Tensor, classes: Tensor | None, *, frac: float, seed: int, name: str
) -> tuple[Tensor, Tensor]:
    """Return ``indices`` in two sorted parts, the second with ``frac`` of them and its share of each class.

    The last sample of a class stays in the first part, so that training sees every class.
    """
    count = round(frac * len(indices)) or 1
    if count >= len(indices):
        raise DataError(
            f"dataset.split.{name}_frac is {frac}, which holds out {count} of {len(indices)} samples and "
            "leaves none to train on. Lower it, or bring more data."
        )
    labels = torch.zeros_like(indices)
    if classes is not None:
        labels = torch.unique(classes[indices], return_inverse=True)[1]
    sizes = labels.bincount()
    chosen = _shares(sizes, count)
    if not chosen.any():  # every class has one sample: nothing to keep in proportion
        labels, sizes, chosen = torch.zeros_like(labels), sizes.sum()[None], torch.tensor([count])
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed % 2**63))
    order = order[labels[order].argsort(stable=True)]
    rank_in_class = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[labels[order]]
    is_held = rank_in_class < chosen[labels[order]]
    return indices[order[~is_held]].sort().values, indices[order[is_held]].sort().values


def _shares(sizes: Tensor, count: int) -> Tensor:
    """Divide ``count`` among classes in proportion to their sizes, by largest remainder."""
    exact = sizes.double() * count / sizes.sum()
    shares = exact.floor().long()
    rest = count - int(shares.sum())
    shares[(shares - exact).argsort(stable=True)[:rest]] += 1
    return shares.minimum(sizes - 1)


def _part(whole: Dataset[Any], indices: Tensor) -> Dataset[Any]:
    tensors = as_tensor_dataset(whole)
    return Subset(whole, indices.tolist()) if tensors is None else take(tensors, indices)


def _count_classes(classes: Tensor | None) -> int | None:
    if classes is not None and int(classes.min()) < 0:
        raise DataError(f"the smallest class is {int(classes.min())}. Number the classes from 0.")
    return None if classes is None else int(classes.max()) + 1


def _record(splits: Splits, split: Split, indices: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe the split so that another run can prove that it had the same one."""
    parts = {name: getattr(splits, name) for name in _PARTS}
    record = {
        **asdict(split),
        "num_samples": {name: num_samples(part) for name, part in parts.items() if part is not None},
    }
    if indices:
        every = torch.cat(list(indices.values()))
        record["disjoint"] = len(torch.unique(every)) == len(every)
        record["sha256_of_indices"] = {name: _sha256(chosen) for name, chosen in indices.items()}
    return record


def _sha256(indices: Tensor) -> str:
    """Hash positions as little-endian int64, on whatever machine."""
    return hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()

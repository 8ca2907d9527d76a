"""Batches on the device, in an order that is a function of (seed, epoch) alone.

Whether data lies on the device, how many workers read it and where a training was resumed never change
a batch: neither which samples are in it, nor how they were transformed. Iterating leaves the global
random generators of the process alone.

    loader = build_loader(dataset, batch_size=128, device=torch.device("cuda"), is_train=True)
    for inputs, targets in loader: ...

`as_loader` takes any data. What rootflow didn't make, a `DataLoader` for instance, draws as it always does.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Ge
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from rootflow.data.batch_order import BatchOrder
from rootflow.data.foreign import CalledDataset, ForeignLoader
from rootflow.data.randomness import hash_ints
from rootflow.data.samples import as_tensor_dataset, num_samples
from rootflow.data.transfer import Transfer, to_device
from rootflow.data.transform import BatchTransform, Transform
from rootflow.data.workers import KeySampler, SeededDataset, collate, leave_signals_to_parent
from rootflow.errors import DataError
from rootflow.limits import Auto, Unit
from rootflow.registry import register

_RESIDENT_FRAC = 0.25
"""Share of the device's free memory that data may take; the rest is for the model."""

_TRANSFORMED_BYTES = 2**28
"""Transformed inputs up to this size are kept beside the data set's own; others are made batch by batch."""

_FLOAT_BYTES = 4


@register("loader", "loader")
@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How data gets to the device."""

    num_workers: Annotated[int, Ge(0), Unit("processes")] | Auto = "auto"
    """processes that read samples; 0 reads in the training process"""

    resident: bool | Auto = "auto"
    """keep the whole data set in the memory of the device; auto: if it takes a quarter of it at most"""

    prefetch_factor: Annotated[int, Ge(1), Unit("batches")] = 4
    """batches that each worker reads ahead"""


class Loader(Protocol):
    """Batches on a device, pass by pass; what `as_loader` makes of any data."""

    @property
    def batch_size(self) -> int | None:
        """Samples in a full batch; None where nobody knows."""

    @property
    def num_batches(self) -> int | None:
        """Batches in a pass; None where nobody knows."""

    @property
    def generators(self) -> list[torch.Generator]:
        """The loader's own; their state and that of the global ones before `iter()` decide the pass."""

    def inexact_reason(self) -> str | None:
        """Return why a resume within an epoch may not give the same batches; None if it should."""

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Make the next pass that of ``epoch``, from its batch ``start_batch`` on."""

    def __iter__(self) -> Iterator[Any]:
        """Pass over the data once. A batch has the structure of a sample."""

    def close(self) -> None:
        """Stop the processes that read samples; another pass would start new ones."""


class _Loader:
    """What our loaders share: the epoch, the position in it, and the device."""

    def __init__(self, order: BatchOrder, device: torch.device, transform: Transform | None) -> None:
        self.order = order
        self.device = device
        self.transform = transform
        self.epoch = 0
        self.start_batch = 0
        self._of_batch = BatchTransform(transform)
        self._indexed_on = torch.device("cpu")

    @property
    def batch_size(self) -> int:
        """Samples in a full batch."""
        return self.order.batch_size

    @property
    def num_batches(self) -> int:
        """Batches in a pass."""
        return len(self.order)

    @property
    def num_samples(self) -> int:
        """Samples in the data set."""
        return self.order.num_samples

    @property
    def generators(self) -> list[torch.Generator]:
        """None: every pass is a function of (seed, epoch)."""
        return []

    def __len__(self) -> int:
        return len(self.order)

    def set_batch_size(self, batch_size: int) -> None:
        """Make batches of another size, from the next pass on."""
        self.order = dataclasses.replace(self.order, batch_size=batch_size)

    def inexact_reason(self) -> None:
        """Return None: a resume gives the same batches."""

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Make the next pass that of ``epoch``, from its batch ``start_batch`` on; nothing is read for it."""
        self.epoch = epoch
        self.start_batch = start_batch

    def close(self) -> None:
        """Do nothing: no process reads."""

    def __iter__(self) -> Iterator[Any]:
        """Pass over the data once.

        A training pass that gets to its end moves on to the next epoch, so that a loop without
        `set_epoch` sees another order each time.
        """
        epoch, start = self.epoch, self.start_batch
        positions = self.order.positions(epoch)
        batches = self._read(self._split(positions, self._indexed_on)[start:], epoch)
        if self._of_batch:
            index = self._split(positions, self.device)[start:]
            batches = self._transformed(batches, index, epoch, start)
        yield from batches
        self.set_epoch(epoch + 1 if self.order.is_train else epoch)

    def _split(self, positions: Tensor, device: torch.device) -> Sequence[Tensor]:
        """Return the positions of each batch, copied to the device once for the whole pass."""
        return to_device(positions, device).split(self.batch_size)  # type: ignore[no-any-return]

    def _transformed(
        self, batches: Iterator[Any], index: Sequence[Tensor], epoch: int, start: int
    ) -> Iterator[Any]:
        for number, (batch, here) in enumerate(zip(batches, index, strict=True), start):
            yield self._of_batch(batch, index=here, epoch=epoch, number=number)

    def _read(self, index: Sequence[Tensor], epoch: int) -> Iterator[Any]:
        raise NotImplementedError


class TensorLoader(_Loader):
    """Batches of a data set in memory, taken out by indexing many positions at once.

    A batch is a tuple of tensors, as many as the data set has.

    Args:
        dataset: one or more tensors; the first is the inputs.
        order: which samples make up each batch.
        device: where batches go.
        transform: applied to the inputs of each batch, on the device; to all at once and only now if it is
            fixed, data is resident, and there is little of it.
        resident: keep the data on the device.
    """

    def __init__(
        self,
        dataset: TensorDataset,
        order: BatchOrder,
        *,
        device: torch.device,
        transform: Transform | None = None,
        resident: bool = True,
    ) -> None:
        super().__init__(order, device, transform)
        self.resident = resident
        self._tensors = tuple(tensor.to(device) if resident else tensor for tensor in dataset.tensors)
        self._indexed_on = self._tensors[0].device
        self._transfer = Transfer(device)
        if resident and transform is not None and getattr(transform, "is_fixed", False):
            self._transform_all(transform)

    def _transform_all(self, transform: Transform) -> None:
        """Transform the inputs once rather than in every batch; element by element, so to the same bits."""
        inputs, *others = self._tensors
        if inputs.numel() * _FLOAT_BYTES <= _TRANSFORMED_BYTES:
            index = torch.arange(len(inputs), device=inputs.device)
            self._tensors = (transform(inputs, index=index, epoch=0), *others)
            self._of_batch.of_samples = None

    def _read(self, index: Sequence[Tensor], epoch: int) -> Iterator[Any]:  # noqa: ARG002
        if self.resident:
            for here in index:
                yield tuple([tensor.index_select(0, here) for tensor in self._tensors])
        else:
            for here in index:
                yield self._transfer(tuple([tensor.index_select(0, here) for tensor in self._tensors]))


class DatasetLoader(_Loader):
    """Batches of any data set with `len()` and indexing, read by torch's `DataLoader`.

    Random transforms in the data set's `__getitem__` that draw from the global generators of Python,
    NumPy or torch become functions of (seed, epoch, index). One that holds a generator of its own does
    as it likes.

    Args:
        dataset: samples as `rootflow.data.samples` describes; stacked as torch's `default_collate` does.
        order: which samples make up each batch.
        device: where batches go.
        transform: applied to the inputs of each batch, on the device.
        num_workers: processes that read; they stay for the next epoch.
        prefetch_factor: batches that each worker reads ahead.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        order: BatchOrder,
        *,
        device: torch.device,
        transform: Transform | None = None,
        num_workers: int = 0,
        prefetch_factor: int = 4,
    ) -> None:
        super().__init__(order, device, transform)
        self.num_workers = num_workers
        self._keys = KeySampler()
        self._transfer = Transfer(device)
        self._loader = DataLoader(
            SeededDataset(dataset, order.seed),
            batch_sampler=self._keys,
            num_workers=num_workers,
            prefetch_factor=prefetch_factor if num_workers else None,
            persistent_workers=num_workers > 0,
            collate_fn=collate,
            pin_memory=device.type == "cuda",
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # else each pass would draw from the global generator
        )

    def close(self) -> None:
        """End the workers; another pass would start new ones."""
        iterator = self._loader._iterator
        if iterator is not None:
            self._loader._iterator = None
            iterator._shutdown_workers()  # type: ignore[attr-defined]

    def _read(self, index: Sequence[Tensor], epoch: int) -> Iterator[Any]:
        self._keys.batches = [[(epoch, position) for position in here.tolist()] for here in index]
        try:
            for batch in self._loader:
                # some versions of torch make a list of a tuple when they pin it
                yield self._transfer(tuple(batch) if type(batch) is list else batch)
        except Exception:
            self.close()  # the traceback keeps this loader alive, and so would keep its workers
            raise


def as_loader(  # noqa: PLR0913  # what a run decides, beside the settings
    data: Any,
    *,
    batch_size: int,
    device: torch.device,
    is_train: bool,
    seed: int = 0,
    transform: Transform | None = None,
    settings: LoaderSettings = LoaderSettings(),
) -> Loader:
    """Return a loader of any data.

    - A map-style data set, a list of samples or a tuple of tensors `(x, y)`: by `build_loader`.
    - An `IterableDataset`, or a function that returns an iterator of samples (a generator function) and is
      called once for each pass: samples are stacked in the order in which they come. A last batch that isn't
      full is kept in training, too. One process reads, unless the settings say how many: each has its own
      copy of the data set, so it must share the samples out among them (`torch.utils.data.get_worker_info`).
    - A `DataLoader`, or any other iterable without `__getitem__`: its batches are taken as they are, whatever
      ``batch_size`` and ``is_train`` say. A generator or another iterator is good for one pass.
    - A loader of ours: is returned as it is, with the transform and the device that it has.

    Raises:
        DataError: the data is none of these, or is empty.
    """
    if isinstance(data, _Loader | ForeignLoader):
        return data
    if isinstance(data, IterableDataset) or _is_function(data):
        stream = data if isinstance(data, IterableDataset) else CalledDataset(data)
        num_workers = 0 if settings.num_workers == "auto" or stream is not data else settings.num_workers
        data = DataLoader(
            stream,
            batch_size=batch_size,
            num_workers=num_workers,
            prefetch_factor=settings.prefetch_factor if num_workers else None,
            collate_fn=collate,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator().manual_seed(hash_ints(seed) % 2**63),
        )
    if isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        return ForeignLoader(data, device=device, transform=transform)
    return build_loader(
        _as_dataset(data),
        batch_size=batch_size,
        device=device,
        is_train=is_train,
        seed=seed,
        transform=transform,
        settings=settings,
    )


def _is_function(data: Any) -> bool:
    """Whether something is to be called for samples: it can be called with nothing, and not be iterated."""
    if isinstance(data, type) or hasattr(data, "__iter__") or hasattr(data, "__getitem__"):
        return False
    try:
        inspect.signature(data).bind()
    except (TypeError, ValueError):
        return False
    return True


def _as_dataset(data: Any) -> Dataset[Any]:
    if isinstance(data, tuple) and data and all(isinstance(item, Tensor) for item in data):
        lengths = [len(tensor) if tensor.ndim else 0 for tensor in data]
        if len(set(lengths)) > 1:
            raise DataError(
                f"the data is tensors of {', '.join(map(str, lengths))} samples; all must have as many. "
                "Cut them to one length."
            )
        return TensorDataset(*data)
    is_indexable = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if not is_indexable or isinstance(data, type | tuple | str | bytes | Mapping):
        kind = f"the class {data.__name__}" if isinstance(data, type) else type(data).__name__
        raise DataError(
            f"the data is {kind}; it must be a data set (torch's, or an object with __getitem__ and "
            "__len__), a list of samples, a tuple of tensors, a DataLoader or another iterable of batches, "
            "or a function that takes nothing and returns an iterator of samples."
        )
    return data  # type: ignore[no-any-return]


def build_loader(  # noqa: PLR0913  # what a run decides, beside the settings
    dataset: Dataset[Any],
    *,
    batch_size: int,
    device: torch.device,
    is_train: bool,
    seed: int = 0,
    transform: Transform | None = None,
    settings: LoaderSettings = LoaderSettings(),
) -> TensorLoader | DatasetLoader:
    """Return the loader that suits a data set: a `TensorLoader` where it is all tensors.

    Raises:
        DataError: the data set is empty.
    """
    if num_samples(dataset) == 0:
        raise DataError("the data set has 0 samples; there is nothing to load.")
    order = BatchOrder(num_samples(dataset), batch_size, is_train, seed)
    tensors = as_tensor_dataset(dataset)
    if tensors is not None:
        resident = find_resident(settings.resident, tensors, device)[0]
        return TensorLoader(tensors, order, device=device, transform=transform, resident=resident)
    return DatasetLoader(
        dataset,
        order,
        device=device,
        transform=transform,
        num_workers=find_num_workers(settings.num_workers)[0],
        prefetch_factor=settings.prefetch_factor,
    )


def full_batch_size(loader: Loader) -> int | None:
    """Return how many samples every batch of a training has; None where a last one may have fewer."""
    if isinstance(loader, _Loader) and loader.order.is_train:
        return min(loader.batch_size, loader.num_samples)
    return None


def find_resident(setting: bool | Auto, dataset: TensorDataset, device: torch.device) -> tuple[bool, str]:  # noqa: FBT001
    """Return whether to keep data on the device, and why."""
    if setting != "auto":
        return setting, "as set"
    if device.type != "cuda":
        return True, "the device shares the memory of the host"
    size, free = sum(tensor.nbytes for tensor in dataset.tensors), torch.cuda.mem_get_info(device)[0]
    return size <= _RESIDENT_FRAC * free, f"{size:,} bytes of data, {free:,} bytes free on the device"


def find_num_workers(setting: int | Auto) -> tuple[int, str]:
    """Return how many processes are to read samples, and why."""
    if setting != "auto":
        return setting, "as set"
    num_cores = count_usable_cores()
    # with two cores or fewer, workers and training would only take turns, and pay for passing batches on
    return (0 if num_cores <= 2 else min(8, num_cores - 1)), f"{num_cores} cores are usable"


def count_usable_cores() -> int:
    """Return the cores this process may use: by its affinity, and by its cgroup's quota of time."""
    has_affinity = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(num_cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return num_cores

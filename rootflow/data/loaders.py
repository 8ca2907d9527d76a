"""Batches on the device, in an order that is a function of (seed, epoch) alone.

Whether data lies on the device, how many workers read it and where a training was resumed never change
a batch: neither which samples are in it, nor how they were transformed. Iterating leaves the global
random generators of the process alone.

    loader = build_loader(dataset, batch_size=128, device=torch.device("cuda"), is_train=True)
    for inputs, targets in loader: ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Ge
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from rootflow.data.batch_order import BatchOrder
from rootflow.data.samples import as_tensor_dataset, inputs_and_targets, num_samples
from rootflow.data.workers import KeySampler, SeededDataset, collate, leave_signals_to_parent
from rootflow.errors import DataError
from rootflow.limits import Auto, Unit
from rootflow.registry import register

_RESIDENT_FRAC = 0.25
"""Share of the device's free memory that data may take; the rest is for the model."""


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


class Transform(Protocol):
    """Turns the inputs of a batch into what the model takes; `rootflow.data.augment.Preprocess` is one."""

    def __call__(self, inputs: Tensor, *, index: Tensor, epoch: int) -> Tensor:
        """Return the inputs, given each sample's position in the data set and the epoch."""


class _Loader:
    """What both loaders share: the epoch, the position in it, and the device."""

    def __init__(self, order: BatchOrder, device: torch.device, transform: Transform | None) -> None:
        self.order = order
        self.device = device
        self.transform = transform
        self.epoch = 0
        self.start_batch = 0

    @property
    def batch_size(self) -> int:
        """Samples in a full batch."""
        return self.order.batch_size

    @property
    def num_samples(self) -> int:
        """Samples in the data set."""
        return self.order.num_samples

    def __len__(self) -> int:
        return len(self.order)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Make the next pass that of ``epoch``, from its batch ``start_batch`` on; nothing is read for it."""
        self.epoch = epoch
        self.start_batch = start_batch

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Pass over the data once.

        A training pass that gets to its end moves on to the next epoch, so that a loop without
        `set_epoch` sees another order each time.
        """
        epoch = self.epoch
        batches = self.order.batches(epoch)[self.start_batch :]
        for index, (inputs, targets) in zip(batches, self._read(batches, epoch), strict=True):
            if self.transform is not None and isinstance(inputs, Tensor):
                inputs = self.transform(inputs, index=to_device(index, self.device), epoch=epoch)
            yield inputs, targets
        self.set_epoch(epoch + 1 if self.order.is_train else epoch)

    def _read(self, batches: Sequence[Tensor], epoch: int) -> Iterator[tuple[Any, Any]]:
        raise NotImplementedError


class TensorLoader(_Loader):
    """Batches of a data set in memory, taken out by indexing many positions at once.

    Args:
        dataset: one or more tensors.
        order: which samples make up each batch.
        device: where batches go.
        transform: applied to the inputs of each batch, on the device.
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

    def _read(self, batches: Sequence[Tensor], epoch: int) -> Iterator[tuple[Any, Any]]:  # noqa: ARG002
        place = self._tensors[0].device
        for index in batches:
            here = to_device(index, place)
            batch = tuple(tensor.index_select(0, here) for tensor in self._tensors)
            yield inputs_and_targets(to_device(batch, self.device))


class DatasetLoader(_Loader):
    """Batches of any data set with `len()` and indexing, read by torch's `DataLoader`.

    Random transforms in the data set's `__getitem__` that draw from the global generators of Python,
    NumPy or torch become functions of (seed, epoch, index). One that holds a generator of its own does
    as it likes.

    Args:
        dataset: samples as `rootflow.data.samples` describes; collated by torch's `default_collate`.
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

    def _read(self, batches: Sequence[Tensor], epoch: int) -> Iterator[tuple[Any, Any]]:
        self._keys.batches = [[(epoch, position) for position in batch.tolist()] for batch in batches]
        try:
            for inputs, targets in self._loader:
                yield to_device(inputs, self.device), to_device(targets, self.device)
        except Exception:
            self.close()  # the traceback keeps this loader alive, and so would keep its workers
            raise


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


def to_device(value: Any, device: torch.device) -> Any:
    """Return tensors, or containers of them, on a device; the host doesn't wait for the copy."""
    if isinstance(value, Tensor):
        if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
            value = value.pin_memory()
        return value.to(device, non_blocking=device.type == "cuda")
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(to_device(item, device) for item in value)
    return value

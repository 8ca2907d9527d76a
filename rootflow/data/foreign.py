"""Batches from loaders and streams of samples that rootflow didn't make.

Their random draws are their own. A pass is repeated by setting the global generators, and those that belong
to the loader, as they were when it began.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from rootflow.data.samples import inputs_and_targets
from rootflow.data.transfer import Transfer
from rootflow.data.transform import BatchTransform, Transform
from rootflow.data.workers import start_worker
from rootflow.errors import DataError


class ForeignLoader:
    """The batches of any iterable as it makes them, on the device.

    Sampler, collate function, workers and batch size stay the source's own. Nothing is read ahead, and no
    random number is drawn beside what the source draws.

    To repeat a pass from its batch k on, set the global generators and `generators` as they were when the
    pass began, call `set_epoch(epoch, k)` and `iter()`, which reads k batches and discards them, and then
    set the global generators as they were before batch k was asked for. The rest is bitwise the same if what
    the source keeps between batches, such as a buffer to shuffle in, doesn't depend on draws from global
    generators that the training draws from, too.

    Args:
        source: iterated once for each pass.
        device: where batches go.
        transform: applied to the inputs of each batch; takes the position of a sample in its pass for its
            position in the data set.
    """

    def __init__(
        self, source: Iterable[Any], *, device: torch.device, transform: Transform | None = None
    ) -> None:
        self.source = source
        self.device = device
        self.epoch = 0
        self.start_batch = 0
        self._transform = BatchTransform(transform)
        self._transfer = Transfer(device)
        self._is_used_up = False

    @property
    def batch_size(self) -> int | None:
        """Samples in a full batch; None where the source doesn't say."""
        sizes = (getattr(part, "batch_size", None) for part in self.parts)
        return next((size for size in sizes if isinstance(size, int)), None)

    @property
    def num_batches(self) -> int | None:
        """Batches in a pass; None where the source doesn't know."""
        try:
            return len(self.source)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):  # a DataLoader has a len() that fails for streams
            return None

    @property
    def generators(self) -> list[torch.Generator]:
        """The generators of the source itself; their state when a pass begins decides the pass."""
        found = (getattr(part, "generator", None) for part in self.parts)
        return list({id(item): item for item in found if isinstance(item, torch.Generator)}.values())

    @property
    def is_one_pass(self) -> bool:
        """Whether the source can be passed over only once."""
        return _is_one_pass(self.source)

    def inexact_reason(self) -> str | None:
        """Return why a resume within an epoch may not give the same batches; None if it should."""
        kind = type(self.source).__name__
        if self.is_one_pass:
            return f"the data is an iterator ({kind}), which can't be started again"
        if not isinstance(self.source, DataLoader):
            return f"the loader is of a kind ({kind}) whose randomness is not known"
        if self.source.persistent_workers and self.source.num_workers:
            return "persistent_workers=True: its workers keep random generators that can't be saved"
        return None

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Tell the source, its samplers and its data set the epoch of the next pass, where they want to know.

        The pass then begins with the batch ``start_batch``; those before are read, and discarded.
        """
        self.epoch = epoch
        self.start_batch = start_batch
        for part in self.parts:
            set_epoch = getattr(part, "set_epoch", None)
            if callable(set_epoch):
                set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        """Pass over the source once, beginning at once: also what is to be discarded is read in this call.

        Raises:
            DataError: the source is an iterator that was passed over before, or gives too few batches.
        """
        if _is_one_pass(self.source):
            if self._is_used_up:
                raise DataError(
                    f"the data is an iterator ({type(self.source).__name__}), which can be passed over only "
                    "once. Give what starts anew each time: a DataLoader, an object whose __iter__ returns a "
                    "new iterator of batches, or a function that returns a new iterator of samples."
                )
            self._is_used_up = True
        with _leaving_signals_to_parent(self.source):
            started = iter(self.source)
        batches = self._counted(started)
        for number in range(self.start_batch):
            if next(batches, None) is None:
                raise DataError(
                    f"{type(self.source).__name__} gave {number} batches in epoch {self.epoch}, which is to "
                    f"go on after {self.start_batch}. Give the loader and data that the training began with."
                )
        return self._on_device(batches, self.epoch, self.start_batch)

    def close(self) -> None:
        """Do nothing: the source is its owner's."""

    def _on_device(self, batches: Iterator[tuple[Any, int]], epoch: int, start: int) -> Iterator[Any]:
        number = start
        for on_host, position in batches:
            batch = self._transfer(on_host)
            if self._transform:
                index = torch.arange(position, position + _num_samples(batch), device=self.device)
                batch = self._transform(batch, index=index, epoch=epoch, number=number)
            yield batch
            number += 1
        if number == 0:
            raise DataError(
                f"{type(self.source).__name__} gave no batch in epoch {epoch}. It may hold less than one "
                "batch (drop_last=True), or be an iterator that was passed over before."
            )
        self.start_batch = 0

    def _counted(self, batches: Iterator[Any]) -> Iterator[tuple[Any, int]]:
        """Yield each batch with the number of samples before it, which only a transform asks for."""
        position = 0
        while True:  # not `for`, which would call `__iter__` again, and so begin some loaders anew
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch, position
            position += _num_samples(batch) if self._transform else 0

    @property
    def parts(self) -> list[Any]:
        """The source, and what it is made of if it is like a DataLoader."""
        batch_sampler = getattr(self.source, "batch_sampler", None)
        parts = [
            self.source,
            getattr(self.source, "sampler", None),
            batch_sampler,
            getattr(batch_sampler, "sampler", None),
            getattr(self.source, "dataset", None),
        ]
        return list({id(part): part for part in parts if part is not None}.values())


class CalledDataset(IterableDataset[Any]):
    """The samples of what a function returns, which is called once for each pass."""

    def __init__(self, function: Callable[[], Iterable[Any]]) -> None:
        self.function = function

    def __iter__(self) -> Iterator[Any]:
        samples = self.function()
        if not isinstance(samples, Iterable):
            raise DataError(
                f"{getattr(self.function, '__name__', 'the function')}() returned {type(samples).__name__}; "
                "a function given as data returns an iterator of samples (a generator function does)."
            )
        return iter(samples)


@contextmanager
def _leaving_signals_to_parent(source: Any) -> Iterator[None]:
    """Let workers that start in the block outlive the signals to their group; the loader stays as it was."""
    if not isinstance(source, DataLoader) or not source.num_workers:
        yield
        return
    own = source.worker_init_fn
    source.worker_init_fn = partial(start_worker, own=own)
    try:
        yield
    finally:
        source.worker_init_fn = own


def _is_one_pass(source: Any) -> bool:
    """Whether a source is an iterator that can't begin anew: a generator, or one of Python's own.

    An `__iter__` written in Python may begin anew, though it returns the same object, as NVIDIA DALI's does.
    """
    return isinstance(source, Iterator) and not isinstance(type(source).__iter__, types.FunctionType)


def _num_samples(batch: Any) -> int:
    inputs, _ = inputs_and_targets(batch)
    return len(inputs) if isinstance(inputs, Tensor) else 0

"""Batches to try a training on: drawn without a trace, and made smaller or larger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rootflow.data.foreign import ForeignLoader
from rootflow.data.loaders import Loader
from rootflow.discover.undo import undoing
from rootflow.errors import DataError
from rootflow.train.objective import count_samples, shape_of, take_part

_MOST_BYTES = 2**28


def draw_batches(loader: Loader, *, max_batches: int, max_bytes: int = _MOST_BYTES) -> list[Any]:
    """Return the first batches of the next pass, on the loader's device; the loader is as before.

    So are its data set, as far as `Undo` looks, and a pass that is under way. Workers that read for this are
    gone when it returns or raises.

    Args:
        loader: that of the training.
        max_batches: how many at most; a short pass gives fewer.
        max_bytes: stop where they take so much memory.

    Raises:
        DataError: the data is good for one pass, which the draw would use up.
        KeyboardInterrupt, SystemExit: a signal came.
    """
    read: list[object] = [loader, *loader.generators]
    if isinstance(loader, ForeignLoader):
        if loader.is_one_pass:
            raise DataError(
                f"the data is an iterator ({type(loader.source).__name__}), and a search would use it up. "
                "Give the values, or data that can be read again."
            )
        read += loader.parts
    batches: list[Any] = []
    num_bytes = 0
    with undoing(read) as (_, interrupts), _ending_workers(loader):
        for batch in interrupts.watch(loader):
            batches.append(batch)
            num_bytes += count_bytes(batch)
            if len(batches) >= max_batches or num_bytes >= max_bytes:
                break
    return batches


@contextmanager
def _ending_workers(loader: Loader) -> Iterator[None]:
    """Let a loader read with workers of its own, and end them: those that it has serve another pass."""
    found = [held for held in vars(loader).values() if isinstance(held, DataLoader)]
    readers = [reader for reader in found if reader.num_workers]
    for reader in readers:
        # persistent ones are held by their reader, which else leaves them to the garbage collector
        vars(reader).update(persistent_workers=True, _iterator=None)
    try:
        yield
    finally:
        for reader in readers:
            if reader._iterator is not None:
                reader._iterator._shutdown_workers()  # type: ignore[attr-defined]


def resized(batch: Any, size: int) -> Any:
    """Return a batch of ``size`` samples: the first ones, or all of them repeated; its structure is kept.

    Raises:
        DataError: nothing tells the samples of such a batch apart.
    """
    num_samples = count_samples(batch)
    if size <= num_samples:
        found = take_part(batch, 0, size, num_samples)
    else:
        found = _repeated(batch, size, num_samples)
    if count_samples(found) != size:
        raise DataError(
            f"the batch is {shape_of(batch)}, and nothing tells its samples apart: it can't be made one of "
            f"{size}. Set trainer.batch_size and trainer.micro_batch_size, or let a batch be made of tensors."
        )
    return found


def _repeated(batch: Any, size: int, num_samples: int) -> Any:
    """Return more samples of a batch; what `take_part` leaves as it is stays so here, too."""
    if isinstance(batch, Mapping):
        return {key: _repeat(value, size, num_samples) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [_repeat(value, size, num_samples) for value in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return _repeat(batch, size, num_samples)


def _repeat(value: Any, size: int, num_samples: int) -> Any:
    if isinstance(value, Tensor):
        if value.ndim == 0 or len(value) != num_samples:
            return value
        return value.index_select(0, torch.arange(size, device=value.device) % num_samples)
    if isinstance(value, list | tuple) and _holds_samples(value, num_samples):
        return type(value)(value[number % num_samples] for number in range(size))
    return _repeated(value, size, num_samples) if isinstance(value, Mapping | tuple | list) else value


def _holds_samples(value: Sequence[Any], num_samples: int) -> bool:
    """Whether a list or tuple within a batch holds samples, rather than parts of the batch."""
    is_tuple_of_parts = (
        isinstance(value, tuple) and value and isinstance(value[0], Tensor | Mapping | tuple | list)
    )
    return len(value) == num_samples and not is_tuple_of_parts


def largest_of(batches: Sequence[Any]) -> Any:
    """Return the batch that takes the most memory, by the sample: sequences differ in length."""
    return max(batches, key=lambda batch: count_bytes(batch) / max(count_samples(batch), 1))


def count_bytes(value: Any) -> int:
    """Return how much memory the tensors of a batch take."""
    if isinstance(value, Tensor):
        return value.numel() * value.itemsize  # nbytes is for dense ones only
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(count_bytes, items))

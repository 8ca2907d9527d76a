"""What goes on in the processes that read samples for a `DatasetLoader`, or in the one process if alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, default_collate

from rootflow.data.randomness import keep_generators, seed_generators


class KeySampler:
    """The batches of keys that the `DataLoader` is to read next; it lives in the training process."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class SeededDataset(Dataset[Any]):
    """A data set whose samples are functions of the key `(epoch, index)`, whichever process reads them."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Any]:
        with keep_generators():
            return [self._read(epoch, index) for epoch, index in keys]

    def _read(self, epoch: int, index: int) -> Any:
        seed_generators(self.seed, epoch, index)
        try:
            return self.dataset[index]
        except Exception as error:
            error.add_note(f"while reading sample {index} of {type(self.dataset).__name__} in epoch {epoch}")
            raise


def collate(samples: list[Any]) -> Any:
    """Stack samples as `default_collate` does; but tuples give a tuple, and a value may be None."""
    first = samples[0]
    if type(first) is dict:
        return {key: _stack([sample[key] for sample in samples]) for key in first}
    if type(first) in (tuple, list):
        return tuple([_stack(column) for column in zip(*samples, strict=True)])
    return default_collate(samples)


def _stack(values: Sequence[Any]) -> Any:
    return None if values[0] is None else default_collate(list(values))


def leave_signals_to_parent(_worker: int) -> None:
    """Let a worker outlive the signals that a terminal or a scheduler sends to the whole group.

    The training process then stops as it wants to, and ends its workers itself.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_when_parent_asks, daemon=True).start()


def start_worker(worker: int, own: Callable[[int], None] | None) -> None:
    """Do what `leave_signals_to_parent` does, and then what a loader's owner wants of its workers."""
    leave_signals_to_parent(worker)
    if own is not None:
        own(worker)


def _exit_when_parent_asks() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)

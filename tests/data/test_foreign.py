"""Loaders that rootflow didn't make: untouched, and resumed within an epoch bit by bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, IterableDataset

from rootflow.data.foreign import ForeignLoader
from rootflow.data.loaders import Loader, as_loader
from rootflow.errors import DataError

CPU = torch.device("cpu")


def draw() -> Tensor:
    """A number from each global generator."""
    return torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))], dtype=torch.float64)


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return draw(), index


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(23).tolist()
        yield from ((draw(), index) for index in order)


class OwnBatches:
    """A batch sampler that shuffles by Python's generator, with batches of two sizes."""

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[list[int]]:
        order = random.sample(range(23), 23)
        for start in range(0, 20, 5):
            yield order[start : start + 2]
            yield order[start + 2 : start + 5]


def samples() -> Iterator[Any]:
    return iter(Stream())


def collate(batch: list[Any]) -> dict[str, Any]:
    noise, index = zip(*batch, strict=True)
    return {"index": torch.tensor(index), "noise": torch.stack(noise) + draw()}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


LOADERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True),
    "workers": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2),
    "generator": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True, generator=seeded()),
    "generator, workers": lambda: DataLoader(
        Noisy(), batch_size=4, shuffle=True, num_workers=2, generator=seeded()
    ),
    "sampler": lambda: DataLoader(
        Noisy(), batch_size=4, sampler=torch.utils.data.RandomSampler(Noisy(), generator=seeded())
    ),
    "batch_sampler": lambda: DataLoader(Noisy(), batch_sampler=OwnBatches(), collate_fn=collate),
    "batch_sampler, workers": lambda: DataLoader(
        Noisy(), batch_sampler=OwnBatches(), collate_fn=collate, num_workers=2
    ),
    "stream": Stream,
    "function": lambda: samples,
}


def global_states() -> tuple[Any, Any, Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def set_global_states(states: tuple[Any, Any, Tensor]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make(name: str) -> Loader:
    return as_loader(LOADERS[name](), batch_size=4, device=CPU, is_train=True)


def train(batches: Iterator[Any]) -> list[Any]:
    """Draw for each batch, as dropout does in a training; return both."""
    return [(batch, draw()) for batch in batches]


def listed(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return list(map(listed, value))


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("name", LOADERS)
def test_a_resumed_epoch_is_bitwise_the_rest_of_the_one_that_was_interrupted(name: str, stop: int) -> None:
    seed_all(0)
    loader = make(name)
    loader.set_epoch(1)
    train(iter(loader))
    loader.set_epoch(2)
    at_start = global_states(), [generator.get_state() for generator in loader.generators]
    batches = iter(loader)
    begun = [(next(batches), draw()) for _ in range(stop)]
    at_stop = global_states()
    rest, after = train(batches), draw()

    seed_all(99)
    resumed = make(name)
    assert resumed.inexact_reason() is None
    set_global_states(at_start[0])
    for generator, state in zip(resumed.generators, at_start[1], strict=True):
        generator.set_state(state)
    resumed.set_epoch(2, start_batch=stop)
    batches = iter(resumed)
    set_global_states(at_stop)
    again = train(batches)

    assert len(begun) + len(rest) == (8 if name.startswith("batch_sampler") else 6)
    assert listed(again) == listed(rest)
    assert listed(draw()) == listed(after)
    seed_all(99)
    assert listed(train(iter(make(name)))) != listed(begun + rest)


def test_batches_are_those_of_the_loader_itself_and_so_are_its_draws() -> None:
    seed_all(1)
    plain = [train(iter(LOADERS["plain"]())) for _ in range(2)]
    seed_all(1)
    wrapped = [train(iter(make("plain"))) for _ in range(2)]
    assert listed(wrapped) == listed(plain)


def test_nothing_is_read_ahead() -> None:
    num_read = 0

    def batches() -> Iterator[Tensor]:
        nonlocal num_read
        for _ in range(5):
            num_read += 1
            yield torch.zeros(2)

    passed = iter(ForeignLoader(batches(), device=CPU))
    for count in range(1, 4):
        next(passed)
        assert num_read == count


def test_an_error_comes_where_it_would_without_us() -> None:
    class Broken(Noisy):
        def __getitem__(self, index: int) -> Any:
            return 1 / (index - 9)

    passed = iter(ForeignLoader(DataLoader(Broken(), batch_size=4), device=CPU))
    assert len([next(passed), next(passed)]) == 2
    with pytest.raises(ZeroDivisionError):
        next(passed)


class Noting:
    """Notes the epochs that it is told; a loader, a sampler or a data set."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Any]:
        return iter(range(3))

    def __getitem__(self, index: int) -> int:
        return index


def test_whoever_has_set_epoch_is_told_once() -> None:
    loader, sampler, inner, dataset, batches = (Noting() for _ in range(5))
    ForeignLoader(loader, device=CPU).set_epoch(4, start_batch=1)
    ForeignLoader(DataLoader(dataset, sampler=sampler), device=CPU).set_epoch(5)  # type: ignore[arg-type]
    in_batches: Any = BatchSampler(inner, 2, drop_last=False)
    ForeignLoader(DataLoader(Noisy(), batch_sampler=in_batches), device=CPU).set_epoch(6)
    of_batches: Any = batches
    ForeignLoader(DataLoader(Noisy(), batch_sampler=of_batches), device=CPU).set_epoch(7)
    noted = [part.epochs for part in (loader, sampler, dataset, inner, batches)]
    assert noted == [[4], [5], [5], [6], [7]]


def test_a_sampler_that_counts_epochs_gives_each_its_own_order() -> None:
    sampler: Any = DistributedSampler(Noisy(), num_replicas=1, rank=0)
    loader = ForeignLoader(DataLoader(Noisy(), batch_size=4, sampler=sampler), device=CPU)

    def order(epoch: int) -> Any:
        loader.set_epoch(epoch)
        return [index.tolist() for _, index in loader]

    first, second = order(1), order(2)
    assert first != second
    assert order(1) == first


def test_generators_of_a_loader_are_found_once_each() -> None:
    generator, other = seeded(), seeded()
    assert make("plain").generators == []
    shared = DataLoader(Noisy(), shuffle=True, generator=generator)
    assert ForeignLoader(shared, device=CPU).generators == [generator]
    sampler = torch.utils.data.RandomSampler(Noisy(), generator=other)
    two = DataLoader(Noisy(), sampler=sampler, generator=generator)
    assert ForeignLoader(two, device=CPU).generators == [generator, other]
    batches: Any = BatchSampler(sampler, 2, drop_last=False)
    assert ForeignLoader(DataLoader(Noisy(), batch_sampler=batches), device=CPU).generators == [other]


def test_what_a_resume_cannot_repeat_is_told() -> None:
    def reason(source: Any) -> str:
        return ForeignLoader(source, device=CPU).inexact_reason() or ""

    persistent = DataLoader(Noisy(), num_workers=1, persistent_workers=True)
    assert "persistent_workers=True" in reason(persistent)
    assert "an iterator (generator), which can't be started again" in reason(x for x in [1])
    assert "the loader is of a kind (Noting) whose randomness is not known" in reason(Noting())
    assert reason(DataLoader(Noisy(), num_workers=1)) == ""


def test_a_pass_without_a_batch_is_refused() -> None:
    empty = ForeignLoader(DataLoader(Noisy(), batch_size=50, drop_last=True), device=CPU)
    empty.set_epoch(3)
    with pytest.raises(
        DataError, match=r"DataLoader gave no batch in epoch 3. It may hold less than one batch"
    ):
        list(empty)


class Prefetcher:
    """An iterator that begins anew each time it is asked for one, as some loaders are."""

    def __init__(self, num_passes: int) -> None:
        self.passes = iter([[1, 2]] * num_passes)
        self.batches: Iterator[int] = iter(())

    def __iter__(self) -> Prefetcher:
        self.batches = iter(next(self.passes, []))
        return self

    def __next__(self) -> int:
        return next(self.batches)


def test_a_class_whose_iterator_is_itself_is_believed_until_it_gives_nothing() -> None:
    loader = ForeignLoader(Prefetcher(2), device=CPU)
    assert [list(loader), list(loader)] == [[1, 2]] * 2
    with pytest.raises(DataError, match="be an iterator that was passed over before"):
        list(loader)


def test_going_on_after_more_batches_than_there_are_is_refused() -> None:
    loader = ForeignLoader(DataLoader(Noisy(), batch_size=10), device=CPU)
    loader.set_epoch(2, start_batch=3)
    assert list(loader) == []
    loader.set_epoch(2, start_batch=5)
    with pytest.raises(DataError, match="DataLoader gave 3 batches in epoch 2, which is to go on after 5"):
        iter(loader)


def test_a_pass_that_gets_to_its_end_is_followed_by_a_whole_one() -> None:
    loader = ForeignLoader(DataLoader(Noisy(), batch_size=10), device=CPU)
    loader.set_epoch(0, start_batch=2)
    assert [len(list(loader)), len(list(loader))] == [1, 3]

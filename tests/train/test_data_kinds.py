"""Data of every kind that PyTorch users have, trained on for two epochs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from rootflow.errors import DataError
from rootflow.train.trainer import FitResult, Trainer

NUM_SAMPLES = 10
X = torch.arange(NUM_SAMPLES, dtype=torch.float32)[:, None] / NUM_SAMPLES
Y = 2 * X + 1


class Indexed:
    """Has what a map-style data set must have, and inherits from nothing."""

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index], Y[index]


class OfTorch(Dataset[Any]):
    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return X[index].numpy(), Y[index].numpy()


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(X, Y, strict=True)


def generate() -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(X, Y, strict=True)


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(torch.split(X, 4), torch.split(Y, 4), strict=True)


class AsBatches:
    """An iterable of batches that isn't a DataLoader."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return batches()


class ByParity:
    """A batch sampler: the even samples, then the odd ones, and those of 8 and 9 not at all."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([0, 2, 4, 6], [1, 3, 5, 7])

    def __len__(self) -> int:
        return 2


class Seen:
    """Counts the samples of each epoch by their inputs, and keeps the sizes of the batches."""

    def __init__(self) -> None:
        self.epochs: list[Counter[int]] = []
        self.sizes: list[int] = []
        self.batches: list[Any] = []

    def on_epoch_start(self) -> None:
        self.epochs.append(Counter())

    def on_batch_start(self, batch: Any) -> None:
        inputs = batch["x"] if isinstance(batch, dict) else batch[0]
        self.epochs[-1].update(round(value * NUM_SAMPLES) for value in inputs.flatten().tolist())
        self.sizes.append(len(inputs))
        self.batches.append(batch)


def fit(data: Any, seen: Seen, *, max_epochs: int = 2) -> tuple[FitResult, float]:
    """Train on the data; return also how far the loss fell."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    before = nn.functional.mse_loss(model(X), Y).item()
    trainer = Trainer(max_epochs=max_epochs, batch_size=4, device="cpu", precision="fp32")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = trainer.fit(model, data, loss="mse_loss", optimizer=optimizer, hooks=[seen])
    return result, nn.functional.mse_loss(model(X), Y).item() / before


EVERY_SAMPLE_ONCE = Counter(range(NUM_SAMPLES))


@pytest.mark.parametrize(
    "data",
    [Stream(), generate, DataLoader(TensorDataset(X, Y), batch_size=4), AsBatches()],
    ids=["an IterableDataset", "a generator function", "a DataLoader", "an iterable of batches"],
)
def test_every_sample_is_trained_on_once_in_each_epoch(data: Any) -> None:
    seen = Seen()
    result, fall = fit(data, seen)
    assert (result.step, result.epoch) == (6, 2)
    assert seen.epochs == [EVERY_SAMPLE_ONCE] * 2
    assert seen.sizes == [4, 4, 2] * 2
    assert fall < 0.5


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(X, Y),
        (X, Y),
        list(zip(X, Y, strict=True)),
        [{"x": x, "target": y} for x, y in zip(X, Y, strict=True)],
        Indexed(),
        OfTorch(),
    ],
    ids=["tensors", "a tuple of tensors", "a list of tuples", "a list of dicts", "no base class", "torch's Dataset"],
)  # fmt: skip
def test_indexed_samples_are_shuffled_into_full_batches_and_never_repeated(data: Any) -> None:
    seen = Seen()
    result, fall = fit(data, seen)
    assert (result.step, result.epoch) == (4, 2)
    assert seen.sizes == [4, 4] * 2
    assert all(len(epoch) == 8 and set(epoch.values()) == {1} for epoch in seen.epochs)
    assert [list(epoch) for epoch in seen.epochs] != [list(range(8))] * 2
    assert fall < 0.5


def test_every_kind_of_indexed_data_gives_the_same_batches() -> None:
    orders = []
    for data in (TensorDataset(X, Y), Indexed(), OfTorch(), list(zip(X, Y, strict=True))):
        seen = Seen()
        fit(data, seen)
        orders.append([list(epoch) for epoch in seen.epochs])
    assert orders == [orders[0]] * 4
    assert orders[0][0] != orders[0][1]


def test_the_batches_of_a_ready_loader_are_those_that_its_parts_make() -> None:
    made: list[tuple[Tensor, Tensor]] = []

    def collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        made.append((torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])))
        return made[-1]

    seen = Seen()
    loader: Any = DataLoader(Indexed(), batch_sampler=ByParity(), collate_fn=collate)  # type: ignore[arg-type]
    result, _ = fit(loader, seen)
    assert (result.step, result.epoch) == (4, 2)
    assert [list(epoch) for epoch in seen.epochs] == [[0, 2, 4, 6, 1, 3, 5, 7]] * 2
    assert len(seen.batches) == len(made) == 4
    same = [
        tensor is own
        for pair in zip(seen.batches, made, strict=True)
        for tensor, own in zip(*pair, strict=True)
    ]
    assert same == [True] * 8


def test_a_generator_is_good_for_one_epoch() -> None:
    seen = Seen()
    result, _ = fit(batches(), seen, max_epochs=1)
    assert (result.step, seen.epochs) == (3, [EVERY_SAMPLE_ONCE])


def test_the_second_epoch_of_a_generator_is_refused_after_the_first_was_trained() -> None:
    seen = Seen()
    with pytest.raises(
        DataError, match=r"^the data is an iterator \(generator\), which can be passed over only once"
    ):
        fit(batches(), seen)
    assert seen.epochs == [EVERY_SAMPLE_ONCE, Counter()]


def test_what_is_no_data_is_refused_with_what_is() -> None:
    for data in (3, "digits", {"x": X}, TensorDataset):
        with pytest.raises(
            DataError, match=r"^the data is .*; it must be a data set \(torch's, or an object with"
        ):
            fit(data, Seen())

"""Batches of another size that keep their structure, and how many are drawn."""

from __future__ import annotations

import multiprocessing
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from rootflow.data.loaders import LoaderSettings, as_loader, build_loader
from rootflow.discover.batches import count_bytes, draw_batches, largest_of, resized
from rootflow.errors import DataError
from rootflow.train.objective import count_samples

CPU = torch.device("cpu")
X = torch.arange(6.0).reshape(3, 2)
Y = torch.tensor([0, 1, 2])


class Pair(NamedTuple):
    inputs: Tensor
    targets: Tensor


class Opaque:
    """A batch that nobody can look into."""


def same(found: Any, expected: Any) -> bool:
    """Whether two batches are equal in structure, types and numbers."""
    if type(found) is not type(expected):
        return False
    if isinstance(found, Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(found, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(found, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


IMAGES = [torch.zeros(3, 4, 4), torch.ones(3, 2, 2), torch.ones(3, 5, 5)]
"""Of several sizes, and as many as each has channels."""
SCALAR = torch.tensor(7.0)
TWO, FIVE = torch.tensor([0, 1]), torch.tensor([0, 1, 2, 0, 1])
BATCHES: dict[str, tuple[Any, Any, Any]] = {
    "a tensor": (X, X[TWO], X[FIVE]),
    "a tuple": ((X, Y), (X[TWO], Y[TWO]), (X[FIVE], Y[FIVE])),
    "a list of parts": ([X, Y], [X[TWO], Y[TWO]], [X[FIVE], Y[FIVE]]),
    "a named tuple": (Pair(X, Y), Pair(X[TWO], Y[TWO]), Pair(X[FIVE], Y[FIVE])),
    "a dict": ({"x": X, "y": Y}, {"x": X[TWO], "y": Y[TWO]}, {"x": X[FIVE], "y": Y[FIVE]}),
    "weights": ((X, Y, X), (X[TWO], Y[TWO], X[TWO]), (X[FIVE], Y[FIVE], X[FIVE])),
    "nested": (
        ({"x": X, "inner": Pair(X, Y)}, Y),
        ({"x": X[TWO], "inner": Pair(X[TWO], Y[TWO])}, Y[TWO]),
        ({"x": X[FIVE], "inner": Pair(X[FIVE], Y[FIVE])}, Y[FIVE]),
    ),
    "as many parts as samples": (
        (X, (Y, X, Y)),
        (X[TWO], (Y[TWO], X[TWO], Y[TWO])),
        (X[FIVE], (Y[FIVE], X[FIVE], Y[FIVE])),
    ),
    "images of several sizes": (
        (IMAGES, Y),
        (IMAGES[:2], Y[TWO]),
        ([*IMAGES, *IMAGES[:2]], Y[FIVE]),
    ),
    "names of files": (
        (X, ("a", "b", "c"), ["d", "e", "f"]),
        (X[TWO], ("a", "b"), ["d", "e"]),
        (X[FIVE], ("a", "b", "c", "a", "b"), ["d", "e", "f", "d", "e"]),
    ),
    "what isn't of samples": (
        (X, {"scale": SCALAR, "epoch": 3, "none": None}, X[:2], ("a", "b")),
        (X[TWO], {"scale": SCALAR, "epoch": 3, "none": None}, X[:2], ("a", "b")),
        (X[FIVE], {"scale": SCALAR, "epoch": 3, "none": None}, X[:2], ("a", "b")),
    ),
}


@pytest.mark.parametrize(("batch", "smaller", "larger"), BATCHES.values(), ids=BATCHES)
def test_a_batch_of_another_size_keeps_its_structure(batch: Any, smaller: Any, larger: Any) -> None:
    assert same(resized(batch, 3), batch)
    assert same(resized(batch, 2), smaller)
    assert same(resized(batch, 5), larger)
    assert [count_samples(resized(batch, size)) for size in (1, 4, 64)] == [1, 4, 64]


def test_sparse_and_channels_last_batches_can_be_made_larger() -> None:
    sparse = X.to_sparse()
    assert torch.equal(resized(sparse, 5).to_dense(), X[FIVE])
    images = torch.rand(3, 2, 4, 4).to(memory_format=torch.channels_last)
    assert torch.equal(resized((images, Y), 5)[0], images[FIVE])


@pytest.mark.parametrize("batch", [Opaque(), (Opaque(), 1), SCALAR, {"loss": SCALAR}, ()])
def test_a_batch_without_samples_that_can_be_told_apart_says_so(batch: Any) -> None:
    with pytest.raises(DataError, match=r"nothing tells its samples apart.*Set trainer\.batch_size"):
        resized(batch, 2)


def test_the_largest_batch_is_the_one_with_the_largest_samples() -> None:
    short, long, many = (torch.zeros(4, 10), Y), [torch.zeros(2, 30)], {"x": torch.zeros(100, 10)}
    assert largest_of([short, long, many]) is long
    assert largest_of([short]) is short


def test_bytes_are_those_of_all_tensors() -> None:
    assert count_bytes((X, {"y": [Y, SCALAR]}, "text", None, 3)) == 6 * 4 + 3 * 8 + 4
    assert count_bytes(X.to_sparse()) == 24


def make_loader(**settings: Any) -> Any:
    data = TensorDataset(torch.zeros(100, 8), torch.zeros(100))
    return build_loader(data, batch_size=10, device=CPU, is_train=True, settings=LoaderSettings(**settings))


@pytest.mark.parametrize(
    ("max_batches", "max_bytes", "count"),
    [(1, 2**20, 1), (3, 2**20, 3), (99, 2**20, 10), (99, 360, 1), (99, 361, 2), (99, 720, 2), (99, 1, 1)],
)
def test_as_many_batches_are_drawn_as_the_bounds_allow(max_batches: int, max_bytes: int, count: int) -> None:
    batches = draw_batches(make_loader(), max_batches=max_batches, max_bytes=max_bytes)  # 360 bytes each
    assert len(batches) == count


def test_the_batches_are_those_of_the_next_pass_and_nothing_is_read_beyond_them() -> None:
    read: list[int] = []

    class Noting(Dataset[Any]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> Tensor:
            read.append(index)
            return torch.tensor(index)

    loader = build_loader(
        Noting(), batch_size=4, device=CPU, is_train=True, settings=LoaderSettings(num_workers=0)
    )
    loader.set_epoch(3, 2)
    drawn = draw_batches(loader, max_batches=2)
    assert len(read) == 8
    assert [batch.tolist() for batch in drawn] == [batch.tolist() for batch in loader][:2]


@pytest.mark.parametrize("is_persistent", [False, True])
def test_workers_that_read_for_a_draw_are_gone_after_it_and_those_of_a_pass_stay(is_persistent: bool) -> None:
    data = DataLoader(TensorDataset(X, Y), 1, num_workers=2, persistent_workers=is_persistent)
    loader = as_loader(data, batch_size=1, device=CPU, is_train=True)
    draw_batches(loader, max_batches=1)
    assert multiprocessing.active_children() == []
    under_way = iter(loader)
    next(under_way)
    workers = {process.pid for process in multiprocessing.active_children()}
    draw_batches(loader, max_batches=2)
    assert {process.pid for process in multiprocessing.active_children()} == workers
    assert len(workers) == 2
    assert len(list(under_way)) == 2
    if is_persistent:
        data._iterator._shutdown_workers()  # type: ignore[union-attr]


def test_an_iterator_is_not_used_up_by_a_draw() -> None:
    batches = iter([(X, Y)])
    loader = as_loader(batches, batch_size=3, device=CPU, is_train=True)
    with pytest.raises(
        DataError, match=r"an iterator \(list_iterator\), and a search would use it up\. Give"
    ):
        draw_batches(loader, max_batches=1)
    assert len(list(loader)) == 1


def test_a_source_without_a_batch_says_so() -> None:
    class Nothing:
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    loader = as_loader(Nothing(), batch_size=3, device=CPU, is_train=True)
    with pytest.raises(DataError, match="Nothing gave no batch"):
        draw_batches(loader, max_batches=1)


def test_mappings_of_other_kinds_become_dicts() -> None:
    assert same(resized(OrderedDict(x=X), 5), {"x": X[FIVE]})

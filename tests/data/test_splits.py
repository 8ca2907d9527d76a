"""Splits: disjoint, seeded, in proportion, from whatever a user's component returns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from rootflow.data.splits import Split, Splits, split_dataset
from rootflow.errors import DataError


def numbered(labels: list[int] | torch.Tensor) -> TensorDataset:
    """A data set whose inputs are its positions."""
    labels = torch.as_tensor(labels)
    return TensorDataset(torch.arange(len(labels)), labels)


def positions(part: Any) -> list[int]:
    assert type(part) is TensorDataset
    return part.tensors[0].tolist()


def test_the_parts_are_disjoint_and_cover_everything() -> None:
    splits = split_dataset(numbered(torch.arange(1000) % 7))
    parts = [positions(part) for part in (splits.train, splits.val, splits.test)]
    assert [len(part) for part in parts] == [720, 80, 200]
    assert sorted(chain(*parts)) == list(range(1000))
    assert splits.record["split"]["disjoint"] is True


def test_each_class_keeps_its_share() -> None:
    labels = torch.cat([torch.zeros(700), torch.ones(250), torch.full((50,), 2)]).long()
    splits = split_dataset(numbered(labels), split=Split(val_frac=0.1, test_frac=0.2))
    assert splits.test is not None
    assert splits.val is not None
    assert labels[positions(splits.test)].bincount().tolist() == [140, 50, 10]
    assert labels[positions(splits.val)].bincount().tolist() == [56, 20, 4]


def test_the_split_is_a_function_of_its_seed_alone() -> None:
    data = numbered(torch.arange(200) % 3)
    first = split_dataset(data, split=Split(seed=5))
    torch.manual_seed(99)
    again = split_dataset(data, split=Split(seed=5))
    other = split_dataset(data, split=Split(seed=6))
    assert first.record == again.record
    assert positions(first.val) == positions(again.val) != positions(other.val)


def test_the_default_split_never_changes() -> None:
    """A changed digest means that old and new runs were not judged on the same samples."""
    record = split_dataset(numbered(torch.arange(100) % 10)).record["split"]
    assert record["sha256_of_indices"]["val"].startswith("f9d54c335507")
    assert record["sha256_of_indices"]["test"].startswith("d191402ef6bf")


def test_the_random_generator_of_torch_is_left_alone() -> None:
    before = torch.get_rng_state()
    split_dataset(numbered([0, 1] * 50))
    assert torch.equal(before, torch.get_rng_state())


def test_classes_of_one_sample_stay_in_training() -> None:
    labels = [0] * 50 + [1, 2, 3]
    splits = split_dataset(numbered(labels), split=Split(val_frac=0.3, test_frac=0.3))
    assert {50, 51, 52} <= set(positions(splits.train))


def test_where_every_class_has_one_sample_the_split_is_simply_random() -> None:
    splits = split_dataset(numbered(list(range(20))), split=Split(val_frac=0.25, test_frac=0.2))
    assert [len(positions(part)) for part in (splits.train, splits.val, splits.test)] == [12, 4, 4]


@pytest.mark.parametrize("frac", [0.01, 0.5, 0.7])
def test_at_least_one_sample_is_held_out_and_one_left(frac: float) -> None:
    splits = split_dataset(numbered([0, 0, 1, 1]), split=Split(val_frac=frac, test_frac=0))
    assert len(positions(splits.val)) >= 1
    assert len(positions(splits.train)) >= 1


def test_nothing_is_held_out_when_the_shares_are_zero() -> None:
    data = numbered([0, 1, 2])
    splits = split_dataset(data, split=Split(val_frac=0, test_frac=0))
    assert (splits.train, splits.val, splits.test) == (data, None, None)


def test_what_the_publisher_split_is_left_as_it_is() -> None:
    train, test = numbered([0, 1] * 20), numbered([1, 0])
    splits = split_dataset({"train": train, "test": test})
    assert splits.test is test
    assert len(positions(splits.train)) == 36
    assert len(positions(splits.val)) == 4
    assert split_dataset((train, test)).val is test
    assert split_dataset({"train": train, "validation": test, "test": test}).train is train


def test_splitting_what_is_split_changes_nothing() -> None:
    splits = split_dataset(numbered([0, 1] * 20), split=Split(test_frac=0))
    assert split_dataset(splits, split=Split(test_frac=0.5, seed=3)) is splits


def test_targets_of_any_data_set_are_read_for_the_proportions() -> None:
    class Lazy(Dataset[Any]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            return torch.rand(2), int(index >= 30)

    splits = split_dataset(Lazy(), split=Split(val_frac=0.5, test_frac=0))
    assert isinstance(splits.val, Subset)
    assert sum(index >= 30 for index in splits.val.indices) == 5
    assert splits.num_classes == 2


def test_a_list_of_samples_is_a_data_set() -> None:
    splits = split_dataset([(torch.zeros(1), 0.5)] * 10)
    assert isinstance(splits.train, Subset)
    assert len(splits.train) == 7


def test_the_record_is_json_and_proves_the_split() -> None:
    record = split_dataset(numbered([0, 1] * 50), split=Split(seed=3)).record
    assert json.loads(json.dumps(record)) == record
    assert record["split"]["num_samples"] == {"train": 72, "val": 8, "test": 20}
    assert record["split"]["seed"] == 3
    assert len(record["split"]["sha256_of_indices"]["train"]) == 64


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Stream(), r"the train data is a Stream; rootflow needs len\(\) and indexing"),
        (iter([1]), r"list_iterator; rootflow needs len"),
        (DataLoader([1, 2]), r"of a DataLoader, its \.dataset"),
        ({}, r"parts are none; rootflow takes train"),
        ({"train": [1], "tset": [1]}, r"parts are train, tset; .* Did you mean 'test'"),
        ((), r"a tuple of 0; rootflow takes \(train, val, test\)"),
        (([1], [], [1]), r"the val data \(list\) has 0 samples"),
        ([(0, 0)], r"test_frac is 0\.2, which holds out 1 of 1 samples"),
    ],
)
def test_data_that_cannot_be_split_says_why(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_dataset(data)


def test_a_share_of_everything_is_refused_with_counts() -> None:
    with pytest.raises(DataError, match=r"val_frac is 1\.0, which holds out 8 of 8 samples"):
        split_dataset(Splits(train=numbered([0, 1] * 5)), split=Split(val_frac=1.0, test_frac=0.2))


def test_a_class_below_zero_is_refused_with_its_number() -> None:
    samples = [(torch.zeros(2), index % 3 - 1) for index in range(30)]
    with pytest.raises(DataError, match=r"the smallest class is -1\. Number the classes from 0"):
        split_dataset(samples)

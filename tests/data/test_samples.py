"""Samples and targets of the kinds of data sets that people bring."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from rootflow.data.samples import (
    as_tensor,
    as_tensor_dataset,
    find_class_names,
    find_num_classes,
    find_targets,
    inputs_and_targets,
    read_classes,
    with_inputs_and_targets,
)
from rootflow.errors import DataError


class Letters(Dataset[Any]):
    """Counts how often it is read."""

    def __init__(self, targets: list[Any]) -> None:
        self.hidden = targets
        self.num_read = 0

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, index: int) -> Any:
        self.num_read += 1
        return torch.zeros(2), self.hidden[index]


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (("x",), ("x", None)),
        (("x", "y"), ("x", "y")),
        (["x", "y"], ("x", "y")),
        (("x", "y", "w"), ("x", ("y", "w"))),
        ("x", ("x", None)),
        ({"image": "x", "label": "y"}, ("x", "y")),
        ({"a": 1, "b": 2, "target": "y"}, ({"a": 1, "b": 2}, "y")),
        ({"pixels": "x"}, ("x", None)),
    ],
)
def test_a_sample_falls_into_inputs_and_targets(sample: Any, expected: Any) -> None:
    assert inputs_and_targets(sample) == expected


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (("x",), ("X",)),
        (("x", "y"), ("X", "yy")),
        (["x", "y"], ["X", "yy"]),
        (("x", "y", "w"), ("X", "yy", "ww")),
        ("x", "X"),
        ({"image": "x", "label": "y"}, {"image": "X", "label": "yy"}),
        ({"label": "y", "a": "x", "b": "x"}, {"label": "yy", "a": "X", "b": "X"}),
        ({"pixels": "x"}, {"pixels": "X"}),
    ],
)
def test_other_inputs_and_targets_take_the_places_of_the_first(sample: Any, expected: Any) -> None:
    inputs, targets = inputs_and_targets(sample)
    inputs = (
        {key: value.upper() for key, value in inputs.items()} if isinstance(inputs, dict) else inputs.upper()
    )
    doubled = tuple(t * 2 for t in targets) if isinstance(targets, tuple) else targets and targets * 2
    changed = with_inputs_and_targets(sample, inputs, doubled)
    assert changed == expected
    assert list(changed) == list(expected)


def test_targets_are_found_without_loading_samples() -> None:
    tensors = TensorDataset(torch.zeros(4, 1), torch.tensor([0, 1, 2, 3]))
    with_attribute = Letters([5, 6])
    with_attribute.targets = [5, 6]  # type: ignore[attr-defined]
    assert find_targets(tensors).tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]
    assert find_targets(Subset(tensors, [3, 1])).tolist() == [3, 1]  # type: ignore[union-attr]
    assert find_targets(ConcatDataset([tensors, with_attribute])).tolist() == [0, 1, 2, 3, 5, 6]  # type: ignore[union-attr]
    assert find_targets(TensorDataset(torch.zeros(4, 1))) is None
    assert find_targets(Letters([1])) is None
    assert with_attribute.num_read == 0


def test_an_attribute_of_another_length_is_not_taken_for_the_targets() -> None:
    letters = Letters([1, 2, 3])
    letters.labels = [7, 8]  # type: ignore[attr-defined]
    assert find_targets(letters) is None
    assert read_classes(letters).tolist() == [1, 2, 3]  # type: ignore[union-attr]


def test_samples_are_read_through_only_if_their_targets_are_classes() -> None:
    numbers = Letters([0.5] * 100)
    assert read_classes(numbers) is None
    assert numbers.num_read == 1
    assert read_classes(Letters([[0, 1]] * 3)) is None
    assert read_classes(Letters([None] * 3)) is None


def test_the_number_of_classes_is_found_behind_subsets() -> None:
    for value, expected in [(7, 7), (lambda: 7, 7)]:
        letters = Letters([0])
        letters.num_classes = value  # type: ignore[attr-defined]
        assert find_num_classes(Subset(Subset(letters, [0]), [0])) == expected
    named = Letters([0])
    named.classes = ["a", "b"]  # type: ignore[attr-defined]
    assert find_num_classes(named) == 2
    assert find_class_names(Subset(named, [0])) == ("a", "b")
    assert find_num_classes(Letters([0])) is None
    assert find_class_names(Letters([0])) is None


def test_only_plain_tensor_datasets_are_indexed_at_once() -> None:
    class Doubled(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index)[0] * 2

    tensors = TensorDataset(torch.arange(5))
    subset = as_tensor_dataset(Subset(tensors, [4, 0]))
    assert subset is not None
    assert subset.tensors[0].tolist() == [4, 0]
    assert as_tensor_dataset(Doubled(torch.arange(5))) is None
    assert as_tensor_dataset(Letters([0])) is None


def test_what_is_no_number_is_refused_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"the target of sample 0 is str 'cat'; .* numbers or dicts"):
        as_tensor("cat", "the target of sample 0")

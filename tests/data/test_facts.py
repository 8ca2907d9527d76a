"""Facts about data, against NumPy and by hand."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from rootflow.data.facts import describe
from rootflow.data.splits import Splits
from rootflow.errors import DataError


class Listed(Dataset[Any]):
    """A data set that only knows how to give out one sample."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def test_uint8_images_are_measured_exactly_as_numbers_from_0_to_1() -> None:
    images = torch.randint(0, 256, (3000, 3, 5, 4), dtype=torch.uint8)
    images[:, 1] //= 3
    facts = describe(Splits(train=TensorDataset(images, torch.arange(3000) % 4)))
    reference = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(facts.mean, reference.mean((0, 2, 3)), rtol=1e-12)  # type: ignore[arg-type]
    np.testing.assert_allclose(facts.std, reference.std((0, 2, 3)), rtol=1e-12)  # type: ignore[arg-type]
    assert (facts.input_shape, facts.in_channels, facts.in_features) == ((3, 5, 4), 3, 60)
    assert (facts.target, facts.num_classes) == ("class", 4)


def test_features_of_a_table_are_measured_one_by_one_and_far_from_zero() -> None:
    table = torch.randn(500, 3) * torch.tensor([1.0, 1e-3, 0]) + torch.tensor([0, 2000.0, 7])
    facts = describe(Splits(train=TensorDataset(table, torch.rand(500))))
    reference = table.double().numpy()
    np.testing.assert_allclose(facts.mean, reference.mean(0), rtol=1e-12, atol=1e-12)  # type: ignore[arg-type]
    np.testing.assert_allclose(facts.std[:2], reference.std(0)[:2], rtol=1e-9)  # type: ignore[index]
    assert facts.std[2] == 1.0  # type: ignore[index]
    assert (facts.input_shape, facts.in_channels, facts.in_features) == ((3,), None, 3)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = Splits(train=TensorDataset(torch.randn(997, 3, 4, 4) + 50, torch.zeros(997).long()))
    whole = describe(splits)
    monkeypatch.setattr("rootflow.data.facts._CHUNK_BYTES", 10_000)
    in_chunks = describe(splits)
    np.testing.assert_allclose(whole.mean, in_chunks.mean, rtol=1e-13)  # type: ignore[arg-type]
    np.testing.assert_allclose(whole.std, in_chunks.std, rtol=1e-12)  # type: ignore[arg-type]


def test_numbers_to_predict_have_a_mean_and_no_classes() -> None:
    targets = torch.tensor([1.0, 2.0, 6.0])
    facts = describe(Splits(train=TensorDataset(torch.zeros(3, 2), targets)))
    assert (facts.target, facts.num_classes, facts.class_names) == ("number", None, None)
    assert facts.target_mean == pytest.approx(3.0)
    assert facts.target_std == pytest.approx(float(targets.std(correction=0)))


def test_without_targets_there_is_nothing_to_say_of_them() -> None:
    facts = describe(Splits(train=TensorDataset(torch.zeros(3, 2))))
    assert (facts.target, facts.num_classes, facts.target_mean) == ("none", None, None)


def test_of_several_targets_the_first_counts() -> None:
    weighted = TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 4]), torch.rand(3))
    assert (describe(Splits(train=weighted)).target, describe(Splits(train=weighted)).num_classes) == (
        "class",
        5,
    )


def test_a_lazy_data_set_has_the_facts_of_its_samples() -> None:
    images = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8)
    labels = torch.arange(50) % 3
    lazy = Listed([(image.numpy(), int(label)) for image, label in zip(images, labels, strict=True)])
    found = dataclasses.asdict(describe(Splits(train=lazy, val=lazy)))
    exact = dataclasses.asdict(describe(Splits(train=TensorDataset(images, labels))))
    assert found.pop("mean") == pytest.approx(exact.pop("mean"))
    assert found.pop("std") == pytest.approx(exact.pop("std"))
    assert found == exact | {"num_val": 50}


def test_of_a_long_lazy_data_set_two_thousand_samples_are_measured() -> None:
    class Long(Listed):
        read: set[int] = set()  # noqa: RUF012

        def __getitem__(self, index: int) -> Any:
            self.read.add(index)
            return torch.tensor([float(index)]), 1.5

    facts = describe(Splits(train=Long([None] * 5000)))
    assert len(Long.read) == 2000
    assert facts.mean == pytest.approx([2499.0], abs=1)


def test_what_the_data_set_says_of_its_classes_goes_before_its_labels() -> None:
    lazy = Listed([(torch.zeros(1), 0)])
    lazy.classes = ["cat", "dog", "emu"]  # type: ignore[attr-defined]
    facts = describe(Splits(train=Subset(lazy, [0])))
    assert (facts.num_classes, facts.class_names) == (3, ("cat", "dog", "emu"))
    assert describe(Splits(train=lazy, num_classes=9)).num_classes == 9


def test_tokens_and_mappings_have_no_mean() -> None:
    tokens = describe(Splits(train=TensorDataset(torch.arange(12).view(3, 4), torch.zeros(3).long())))
    assert (tokens.mean, tokens.input_shape) == (None, (4,))
    mapping = describe(Splits(train=Listed([{"a": torch.zeros(2), "b": torch.zeros(3), "label": 1}])))
    assert (mapping.mean, mapping.input_shape, mapping.in_features) == (None, None, None)
    assert mapping.num_classes == 2


def test_describing_is_repeatable_and_moves_no_generator() -> None:
    class Noisy(Listed):
        def __getitem__(self, index: int) -> Any:
            return torch.rand(3) + random.random() + np.random.rand(), 0

    before = random.getstate(), torch.get_rng_state()
    first, second = (describe(Splits(train=Noisy([None] * 20))) for _ in range(2))
    assert first == second
    assert before[0] == random.getstate()
    assert torch.equal(before[1], torch.get_rng_state())


def test_facts_are_json() -> None:
    facts = dataclasses.asdict(describe(Splits(train=TensorDataset(torch.rand(4, 3), torch.rand(4)))))
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts | {
        key: list(value) for key, value in facts.items() if isinstance(value, tuple)
    }


def plain(inputs: Any, targets: Any) -> TensorDataset:
    return TensorDataset(torch.tensor(inputs), torch.tensor(targets))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (Splits(train=plain([[1.0], [float("nan")]], [0, 1])), "training inputs hold NaN or infinite"),
        (Splits(train=plain([[1.0], [2.0]], [0.5, float("inf")])), "training targets hold NaN or infinite"),
        (Splits(train=plain([[1.0]] * 2, [1, 10]), num_classes=10), "train targets go from 1 to 10, .* 10 classes, 0 to 9"),
        (
            Splits(train=plain([[1.0]] * 2, [0, 1]), test=plain([[1.0]] * 2, [0, 2])),
            "test targets go from 0 to 2, but there are 2 classes",
        ),
        (Splits(train=plain([[1.0]] * 2, [-1, 1])), "from -1 to 1"),
        (Splits(train=Listed([("text", 0)])), "the input of sample 0 is str 'text'"),
        (Splits(train=Listed([(torch.zeros(1), "cat")])), "the target of sample 0 is str 'cat'"),
        (Splits(train=Listed([(torch.zeros(1), 0), (torch.zeros(2), 0)])), r"sample 1 has shape \(2,\) and sample 0 has \(1,\)"),
    ],
)  # fmt: skip
def test_data_that_no_model_can_take_says_why(splits: Splits, message: str) -> None:
    with pytest.raises(DataError, match=message):
        describe(splits)

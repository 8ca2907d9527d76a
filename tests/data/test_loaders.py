"""Loaders in a plain loop: the same batches whatever reads them, and nobody else's generators moved."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from rootflow.data.augment import Augment, Preprocess
from rootflow.data.loaders import (
    DatasetLoader,
    LoaderSettings,
    TensorLoader,
    build_loader,
    count_usable_cores,
    find_num_workers,
    find_resident,
)
from rootflow.errors import DataError

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


class Noisy(Dataset[Any]):
    """Draws from every global generator for each sample."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = [index, random.random(), np.random.rand(), np.random.randint(1000)]
        return torch.cat([torch.tensor(noise), torch.rand(2, dtype=torch.float64)]), index


def loader(dataset: Any, *, is_train: bool = True, batch_size: int = 4, workers: int = 0, **more: Any) -> Any:
    settings = LoaderSettings(num_workers=workers, prefetch_factor=2)
    return build_loader(
        dataset, batch_size=batch_size, device=CPU, is_train=is_train, settings=settings, **more
    )


def numbers(count: int = 23) -> TensorDataset:
    return TensorDataset(torch.arange(count).float()[:, None], torch.arange(count))


def targets(batches: Any) -> list[list[int]]:
    return [target.tolist() for _, target in batches]


@pytest.fixture(params=["tensors", "samples"])
def dataset(request: pytest.FixtureRequest) -> Any:
    return numbers() if request.param == "tensors" else Noisy()


def test_training_shuffles_and_leaves_out_the_batch_that_is_not_full(dataset: Any) -> None:
    train = loader(dataset)
    batches = targets(train)
    assert len(train) == len(batches) == 5
    assert [len(batch) for batch in batches] == [4] * 5
    assert len(set(chain(*batches))) == 20
    assert list(chain(*batches)) != list(range(20))


def test_evaluation_takes_every_sample_once_and_in_order(dataset: Any) -> None:
    evaluation = loader(dataset, is_train=False)
    assert list(chain(*targets(evaluation))) == list(range(23))
    assert len(evaluation) == 6
    assert targets(evaluation) == targets(evaluation)


def test_a_batch_larger_than_the_data_holds_all_of_it(dataset: Any) -> None:
    train = loader(dataset, batch_size=100)
    assert len(train) == 1
    assert [sorted(batch) for batch in targets(train)] == [list(range(23))]


def test_the_order_is_a_function_of_seed_and_epoch(dataset: Any) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        train = loader(dataset, seed=seed)
        train.set_epoch(epoch)
        return targets(train)

    assert order(0, 3) == order(0, 3)
    assert len({str(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_tensors_and_samples_come_in_the_same_order() -> None:
    assert targets(loader(numbers(), seed=4)) == targets(loader(Noisy(), seed=4))


def test_starting_at_a_batch_is_the_same_as_skipping(dataset: Any) -> None:
    train = loader(dataset)
    train.set_epoch(2)
    whole = list(train)
    train.set_epoch(2, start_batch=3)
    rest = list(train)
    assert len(rest) == 2
    for (x, y), (x_rest, y_rest) in zip(whole[3:], rest, strict=True):
        assert torch.equal(x, x_rest)
        assert torch.equal(y, y_rest)


def test_a_loop_that_sets_no_epoch_sees_another_order_each_time(dataset: Any) -> None:
    train = loader(dataset)
    first, second = targets(train), targets(train)
    assert first != second
    train.set_epoch(1)
    assert targets(train) == second


def test_leaving_a_pass_early_begins_the_same_epoch_again(dataset: Any) -> None:
    train = loader(dataset)
    _, begun = next(iter(train))
    assert targets(train)[0] == begun.tolist()


def test_random_transforms_are_the_same_for_any_number_of_workers() -> None:
    def read(workers: int, *, is_train: bool) -> list[list[Any]]:
        made = loader(Noisy(), workers=workers, is_train=is_train)
        return [[x.tolist() for x, _ in made] for _ in range(2)]

    for is_train in (True, False):
        assert read(0, is_train=is_train) == read(2, is_train=is_train)


def test_random_transforms_draw_anew_in_each_epoch_of_training_alone() -> None:
    def noise_by_sample(made: Any) -> dict[int, list[float]]:
        return {y: x[1:].tolist() for xs, ys in made for x, y in zip(xs, ys.tolist(), strict=True)}

    train, evaluation = loader(Noisy()), loader(Noisy(), is_train=False)
    first, second = noise_by_sample(train), noise_by_sample(train)
    assert all(first[index] != second[index] for index in first.keys() & second.keys())
    assert noise_by_sample(evaluation) == noise_by_sample(evaluation)


def test_resuming_within_an_epoch_gives_the_same_samples_with_workers() -> None:
    train = loader(Noisy(), workers=2)
    whole = [x.tolist() for x, _ in train]
    train.set_epoch(0, start_batch=2)
    assert [x.tolist() for x, _ in train] == whole[2:]


@pytest.mark.parametrize("workers", [0, 1])
def test_iterating_moves_no_global_generator(dataset: Any, workers: int) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for _ in loader(dataset, workers=workers):
        pass
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_the_transform_knows_each_sample_and_the_epoch(dataset: Any) -> None:
    seen: list[tuple[list[int], int]] = []

    def note(inputs: Tensor, *, index: Tensor, epoch: int) -> Tensor:
        seen.append((index.tolist(), epoch))
        return inputs * 0

    train = loader(dataset, transform=note)
    train.set_epoch(6)
    batches = list(train)
    assert seen == [(batch, 6) for batch in targets(batches)]
    assert all(not x.any() for x, _ in batches)


def test_images_are_augmented_alike_in_batches_of_any_size() -> None:
    images = torch.randint(0, 256, (12, 1, 6, 6), dtype=torch.uint8)
    made = TensorDataset(images, torch.arange(12))
    transform = Preprocess((0.5,), (0.2,), augment=Augment(flip="random", translate=2), seed=3)

    def by_sample(batch_size: int) -> dict[int, list[Any]]:
        train = loader(made, batch_size=batch_size, transform=transform)
        return {int(y): x.tolist() for xs, ys in train for x, y in zip(xs, ys, strict=True)}

    assert by_sample(2) == by_sample(12)


class Listed(Dataset[Any]):
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def test_samples_of_many_kinds_become_inputs_and_targets() -> None:
    x = torch.ones(2)
    cases: list[tuple[Any, Any]] = [
        ((x,), None),
        ((x, 3), [3, 3]),
        ((x, None), None),
        ((x, 3, 0.5), ([3, 3], [0.5, 0.5])),
        ({"image": x, "label": 3}, [3, 3]),
    ]
    for sample, expected in cases:
        ((inputs, found),) = loader(Listed([sample] * 2), batch_size=2)
        assert inputs.shape == (2, 2)
        listed = tuple(t.tolist() for t in found) if isinstance(found, tuple) else found
        assert (listed.tolist() if isinstance(listed, Tensor) else listed) == expected


def test_inputs_may_be_a_mapping() -> None:
    ((inputs, found),) = loader(Listed([{"a": torch.ones(2), "b": 1.0, "y": 0}] * 3), batch_size=3)
    assert inputs["a"].shape == (3, 2)
    assert inputs["b"].shape == (3,)
    assert found.tolist() == [0, 0, 0]


def test_tensor_data_sets_are_indexed_and_others_read() -> None:
    assert isinstance(loader(numbers()), TensorLoader)
    assert isinstance(loader(Subset(numbers(), [1, 2, 3])), TensorLoader)
    assert isinstance(loader(Noisy()), DatasetLoader)
    assert targets(loader(Subset(numbers(), [5, 1]), is_train=False)) == [[5, 1]]
    assert [t for _, t in loader(TensorDataset(torch.ones(8, 1)))] == [None, None]


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(DataError, match="0 samples"):
        loader(numbers(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_sample_says_which(workers: int) -> None:
    class Broken(Noisy):
        def __getitem__(self, index: int) -> Any:
            return 1 / (index - 7)

    with pytest.raises(ZeroDivisionError) as caught:
        list(loader(Broken(), is_train=False, workers=workers))
    note = "while reading sample 7 of Broken in epoch 0"
    assert note in str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))


def test_workers_outlive_the_signals_of_their_group() -> None:
    class Pid(Noisy):
        def __getitem__(self, index: int) -> Any:
            return os.getpid(), 0

    made = loader(Pid(), workers=1)
    batches: Iterator[Any] = iter(made)
    worker = int(next(batches)[0][0])
    for name in ("-INT", "-TERM"):
        subprocess.run(["kill", name, str(worker)], check=True)  # not from its parent, as a scheduler would
    assert worker != os.getpid()
    assert {int(pid) for pids, _ in batches for pid in pids} == {worker}


@pytest.mark.slow
def test_a_program_that_ends_within_a_pass_does_not_wait_for_its_workers() -> None:
    code = (
        "import torch, os; from rootflow.data.loaders import *\n"
        "made = build_loader([(os.getpid(), i) for i in range(99)], batch_size=2, device=torch.device('cpu'),\n"
        "                    is_train=True, settings=LoaderSettings(num_workers=2))\n"
        "batches = iter(made); next(batches)\n"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert time.monotonic() - began < 30


def test_what_is_auto_comes_with_its_reason() -> None:
    assert find_num_workers(3) == (3, "as set")
    workers, reason = find_num_workers("auto")
    cores = count_usable_cores()
    assert workers == (0 if cores <= 2 else min(8, cores - 1))
    assert str(cores) in reason
    assert find_resident("auto", numbers(), CPU) == (True, "the device shares the memory of the host")
    assert find_resident(False, numbers(), CPU) == (False, "as set")


def test_batches_are_the_same_whether_data_lies_on_the_device_or_not() -> None:
    def read(resident: bool) -> list[list[int]]:
        settings = LoaderSettings(resident=resident)
        return targets(build_loader(numbers(), batch_size=4, device=CPU, is_train=True, settings=settings))

    assert read(True) == read(False)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("resident", [True, False])
def test_a_gpu_gets_the_batches_that_the_cpu_gets(dataset: Any, resident: bool) -> None:
    settings = LoaderSettings(resident=resident, num_workers=0)
    on_gpu = build_loader(
        dataset, batch_size=4, device=torch.device("cuda"), is_train=True, settings=settings
    )
    for (x, y), (x_cpu, y_cpu) in zip(on_gpu, loader(dataset), strict=True):
        assert x.is_cuda
        assert y.is_cuda
        assert torch.equal(x.cpu(), x_cpu)
        assert torch.equal(y.cpu(), y_cpu)


@pytest.mark.gpu
@needs_gpu
def test_a_resident_pass_never_waits_for_the_gpu() -> None:
    images = TensorDataset(torch.zeros(512, 3, 8, 8, dtype=torch.uint8), torch.zeros(512).long())
    transform = Preprocess((0.5,) * 3, (0.2,) * 3, augment=Augment(flip="alternating", translate=2, cutout=3))
    train = build_loader(
        images, batch_size=64, device=torch.device("cuda"), is_train=True, transform=transform
    )
    list(train)
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(train)
    finally:
        torch.cuda.set_sync_debug_mode("default")

"""Loaders in a plain loop: the same batches whatever reads them, and nobody else's generators moved."""

from __future__ import annotations

import functools
import itertools
import os
import random
import subprocess
import sys
import time
from collections import UserDict
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, get_worker_info

from rootflow.data.augment import Augment, Preprocess
from rootflow.data.loaders import (
    DatasetLoader,
    LoaderSettings,
    TensorLoader,
    as_loader,
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


class Pair(NamedTuple):
    image: Any
    label: Any


def plain(batch: Any) -> Any:
    """Tensors as lists, for `==`."""
    if isinstance(batch, Tensor):
        return batch.tolist()
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, Pair):
        return Pair(*map(plain, batch))
    return type(batch)(map(plain, batch)) if isinstance(batch, tuple | list) else batch


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ((7,), ([7, 7],)),
        ((7, 3), ([7, 7], [3, 3])),
        ([7, 3], ([7, 7], [3, 3])),
        ((7, None), ([7, 7], None)),
        ((7, 3, 0.5), ([7, 7], [3, 3], [0.5, 0.5])),
        (({"a": 7}, (1, 2)), ({"a": [7, 7]}, [[1, 1], [2, 2]])),
        (7, [7, 7]),
        ({"image": 7, "label": 3}, {"image": [7, 7], "label": [3, 3]}),
        ({"image": 7, "label": None}, {"image": [7, 7], "label": None}),
        ({"a": 7, "b": 1.0, "y": 0}, {"a": [7, 7], "b": [1.0, 1.0], "y": [0, 0]}),
        ({"text": "x"}, {"text": ["x", "x"]}),
        (Pair(7, 3), Pair([7, 7], [3, 3])),
    ],
)
def test_a_batch_has_the_structure_of_a_sample(sample: Any, expected: Any, workers: int) -> None:
    (batch,) = loader(Listed([sample] * 2), batch_size=2, workers=workers)
    assert plain(batch) == expected
    assert type(batch) is type(expected) or isinstance(batch, Tensor)


@pytest.mark.parametrize("num_tensors", [1, 2, 3])
@pytest.mark.parametrize("resident", [True, False])
def test_a_batch_of_tensors_has_as_many_as_the_data_set(num_tensors: int, resident: bool) -> None:
    made = build_loader(
        TensorDataset(*[torch.arange(4) + 10 * i for i in range(num_tensors)]),
        batch_size=2,
        device=CPU,
        is_train=False,
        settings=LoaderSettings(resident=resident),
    )
    assert plain(list(made)) == [
        tuple([10 * i + start, 10 * i + start + 1] for i in range(num_tensors)) for start in (0, 2)
    ]


def negative(inputs: Tensor, *, index: Tensor, epoch: int) -> Tensor:
    return -inputs


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ((7,), ([-7, -7],)),
        ((7, 3), ([-7, -7], [3, 3])),
        ((7, None), ([-7, -7], None)),
        ((7, 3, 5), ([-7, -7], [3, 3], [5, 5])),
        (7, [-7, -7]),
        ({"label": 3, "image": 7}, {"label": [3, 3], "image": [-7, -7]}),
        ({"image": 7}, {"image": [-7, -7]}),
        ({"a": 7, "b": 1, "y": 0}, {"a": [7, 7], "b": [1, 1], "y": [0, 0]}),
        (({"a": 7}, 3), ({"a": [7, 7]}, [3, 3])),
        (Pair(7, 3), Pair([-7, -7], [3, 3])),
    ],
)
def test_the_transform_gets_the_inputs_wherever_they_are(sample: Any, expected: Any) -> None:
    (batch,) = loader(Listed([sample] * 2), batch_size=2, transform=negative)
    assert plain(batch) == expected


def test_tensor_data_sets_are_indexed_and_others_read() -> None:
    assert isinstance(loader(numbers()), TensorLoader)
    assert isinstance(loader(Subset(numbers(), [1, 2, 3])), TensorLoader)
    assert isinstance(loader(Noisy()), DatasetLoader)
    assert targets(loader(Subset(numbers(), [5, 1]), is_train=False)) == [[5, 1]]
    assert [len(batch) for batch in loader(TensorDataset(torch.ones(8, 1)))] == [1, 1]


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


def test_a_loader_of_ours_tells_its_size_and_has_nothing_to_save(dataset: Any) -> None:
    train = loader(dataset)
    assert (train.num_batches, train.batch_size) == (5, 4)
    assert train.generators == []
    assert train.inexact_reason() is None
    train.close()


def test_resident_inputs_are_normalised_once_and_to_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 7, 5), dtype=torch.uint8, generator=generator)
    table = 1e3 * torch.randn(24, 3, generator=generator, dtype=torch.float64)
    for inputs in (images, table):
        made = TensorDataset(inputs, torch.arange(24))
        transform = Preprocess((0.1, 0.2, 0.3), (0.7, 0.6, 1.1))
        whole, parts = (
            list(loader_of(made, resident, transform=Counted(transform))) for resident in (True, False)
        )
        assert all(torch.equal(x, x_part) for (x, _), (x_part, _) in zip(whole, parts, strict=True))


class Counted:
    """A transform that is fixed, and counts how often it is asked."""

    is_fixed = True

    def __init__(self, transform: Any = negative) -> None:
        self.transform = transform
        self.num_calls = 0

    def __call__(self, inputs: Tensor, *, index: Tensor, epoch: int) -> Tensor:
        self.num_calls += 1
        changed: Tensor = self.transform(inputs, index=index, epoch=epoch)
        return changed


def loader_of(dataset: Any, resident: bool, **more: Any) -> Any:
    settings = LoaderSettings(resident=resident, num_workers=0)
    return build_loader(dataset, batch_size=4, device=CPU, is_train=True, settings=settings, **more)


def test_a_fixed_transform_is_asked_once_for_resident_data_unless_there_is_much_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count(resident: bool) -> int:
        counted = Counted()
        batches = list(loader_of(numbers(), resident, transform=counted))
        assert all(torch.equal(x[:, 0], -y.float()) for x, y in batches)
        return counted.num_calls

    assert count(resident=True) == 1
    assert count(resident=False) == 5
    monkeypatch.setattr("rootflow.data.loaders._TRANSFORMED_BYTES", 23 * 4 - 1)
    assert count(resident=True) == 5


def test_transforming_all_at_once_leaves_the_data_set_as_it_was() -> None:
    made = numbers()
    loader(made, transform=Counted())
    assert torch.equal(made.tensors[0], numbers().tensors[0])


class Stream(IterableDataset[Any]):
    """Samples 0 .. 9, with noise from the global generators."""

    def __iter__(self) -> Iterator[Any]:
        for index in range(10):
            yield torch.rand(2), index


class SharedStream(Stream):
    """Shares its samples out among workers."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        yield from itertools.islice(super().__iter__(), info.id, None, info.num_workers)


def samples() -> Iterator[Any]:
    yield from ((torch.tensor([float(index)]), index) for index in range(10))


class OwnLoader:
    """Batches, without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.zeros(3), torch.tensor([0, 1, 2])), (torch.zeros(1), torch.tensor([3]))])


class Indexed:
    """A data set that knows nothing of torch's."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return [float(index)], index


def load(data: Any, *, is_train: bool = True, **more: Any) -> Any:
    return as_loader(data, batch_size=4, device=CPU, is_train=is_train, **more)


@pytest.mark.parametrize(
    "data",
    [
        numbers(10),
        Indexed(),
        [(torch.zeros(2), index) for index in range(10)],
        (torch.zeros(10, 2), torch.arange(10)),
    ],
    ids=["TensorDataset", "own class", "list", "tuple of tensors"],
)
def test_data_that_can_be_indexed_is_shuffled_by_us(data: Any) -> None:
    train, wanted = load(data, seed=3), loader(numbers(10), seed=3)
    assert isinstance(train, TensorLoader | DatasetLoader)
    assert targets(train) == targets(wanted)
    assert list(chain(*targets(load(data, is_train=False)))) == list(range(10))


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("data", [Stream(), samples, functools.partial(samples)])
def test_a_stream_is_stacked_in_its_order_up_to_the_last_sample(data: Any, is_train: bool) -> None:
    stream = load(data, is_train=is_train)
    assert (stream.num_batches, stream.batch_size) == (None, 4)
    for _ in range(2):
        assert targets(stream) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert type(next(iter(stream))) is tuple
    stream.close()


def test_a_stream_moves_no_generator_but_by_its_own_draws() -> None:
    before = torch.get_rng_state()
    list(load(samples))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_with_a_length_tells_its_batches() -> None:
    class Sized(Stream):
        def __len__(self) -> int:
            return 10

    assert load(Sized()).num_batches == 3


def test_a_stream_that_shares_itself_out_may_have_workers() -> None:
    stream = load(SharedStream(), settings=LoaderSettings(num_workers=2))
    assert targets(stream) == [[0, 2, 4, 6], [1, 3, 5, 7], [8], [9]]


def test_batches_of_other_loaders_are_taken_as_they_are() -> None:
    theirs = DataLoader(numbers(10), batch_size=3, drop_last=True)
    assert [targets(load(theirs)), targets(load(theirs))] == [[[0, 1, 2], [3, 4, 5], [6, 7, 8]]] * 2
    assert (load(theirs).num_batches, load(theirs).batch_size) == (3, 3)
    assert [targets(load(OwnLoader())), targets(load(OwnLoader()))] == [[[0, 1, 2], [3]]] * 2
    assert (load(OwnLoader()).num_batches, load(OwnLoader()).batch_size) == (None, None)


def test_a_loader_of_ours_is_returned_as_it_is() -> None:
    for ours in (load(numbers()), load(Indexed()), load(samples)):
        assert load(ours) is ours


@pytest.mark.parametrize("make", [lambda: iter(OwnLoader()), lambda: (batch for batch in OwnLoader())])
def test_an_iterator_of_batches_is_good_for_one_pass(make: Any) -> None:
    once = load(make())
    assert targets(once) == [[0, 1, 2], [3]]
    with pytest.raises(
        DataError, match=r"an iterator \((list_iterator|generator)\), .* only once. Give .* function"
    ):
        iter(once)
    assert "an iterator" in once.inexact_reason()


def test_a_batch_whose_inputs_are_no_one_tensor_is_handed_on_as_it_is() -> None:
    batch = UserDict(a=torch.ones(2), b=torch.ones(2), y=torch.zeros(2))
    assert [passed is batch for passed in load(iter([batch]), transform=negative)] == [True]


def test_the_transform_of_a_stream_knows_a_sample_by_its_place_in_the_pass() -> None:
    seen: list[tuple[list[int], int]] = []

    def note(inputs: Tensor, *, index: Tensor, epoch: int) -> Tensor:
        seen.append((index.tolist(), epoch))
        return -inputs

    stream = load(samples, transform=note)
    stream.set_epoch(7, start_batch=1)
    assert [x[:, 0].tolist() for x, _ in stream] == [[-4.0, -5.0, -6.0, -7.0], [-8.0, -9.0]]
    assert seen == [([4, 5, 6, 7], 7), ([8, 9], 7)]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "the data is NoneType; it must be a data set"),
        (3, "the data is int; it must be"),
        ("digits", "the data is str; it must be"),
        ({"train": [1, 2]}, "the data is dict; it must be"),
        (((1, 2), (3, 4)), "the data is tuple; it must be"),
        (Stream, "the data is the class Stream; it must be"),
        (targets, "the data is function; it must be .* a function that takes nothing"),
        ((torch.zeros(3), torch.zeros(4)), "the data is tensors of 3, 4 samples; all must have as many"),
        ((torch.zeros(3), torch.tensor(4)), "the data is tensors of 3, 0 samples"),
        ([], "0 samples"),
    ],
)
def test_what_is_no_data_is_refused_with_what_is_allowed(data: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        load(data)


def test_a_function_that_returns_no_samples_is_named() -> None:
    def nothing() -> None:
        pass

    with pytest.raises(DataError, match=r"nothing\(\) returned NoneType; .* an iterator of samples"):
        list(load(nothing))


def mixing(**augment: Any) -> Preprocess:
    return Preprocess(augment=Augment(**augment), seed=3, num_classes=23)


@pytest.mark.parametrize("resident", [True, False])
def test_a_resumed_epoch_is_mixed_like_a_whole_one(dataset: Any, resident: bool) -> None:
    train = loader_of(dataset, resident, transform=mixing(mixup=0.4))
    train.set_epoch(2)
    whole = list(train)
    train.set_epoch(2, start_batch=2)
    rest = list(train)
    assert [plain(batch) for batch in rest] == [plain(batch) for batch in whole[2:]]
    assert len({float(y.max()) for _, y in whole}) == 5  # each batch keeps a share of its own


def test_batches_are_mixed_alike_wherever_they_come_from() -> None:
    def read(data: Any, resident: bool = True) -> Any:
        transform = mixing(mixup=0.4, cutmix=1.0, flip="random", translate=1)
        return [plain(batch) for batch in loader_of(data, resident, transform=transform)]

    images = TensorDataset(
        torch.rand(23, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(23)
    )
    expected = read(images)
    assert read(images, resident=False) == expected
    assert read([images[index] for index in range(23)]) == expected


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


MIXES: list[dict[str, float]] = [{}, {"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("resident", [True, False])
def test_a_pass_never_waits_for_the_gpu(resident: bool, mix: dict[str, float]) -> None:
    images = TensorDataset(torch.zeros(512, 3, 8, 8, dtype=torch.uint8), torch.zeros(512).long())
    augment = Augment(flip="alternating", translate=2, cutout=3, **mix)
    train = build_loader(
        images,
        batch_size=64,
        device=torch.device("cuda"),
        is_train=True,
        transform=Preprocess((0.5,) * 3, (0.2,) * 3, augment=augment, num_classes=10),
        settings=LoaderSettings(resident=resident),
    )
    list(train)
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(train)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("data", [Noisy(), Stream(), DataLoader(numbers(4096), batch_size=64)])
def test_batches_from_the_host_are_copied_without_waiting_and_are_not_written_over(data: Any) -> None:
    cuda = torch.device("cuda")
    torch.manual_seed(0)
    expected = [plain(batch) for batch in as_loader(data, batch_size=4, device=CPU, is_train=False)]
    on_gpu = as_loader(data, batch_size=4, device=cuda, is_train=False)
    torch.manual_seed(0)
    busy = torch.randn(2048, 2048, device=cuda)
    list(on_gpu)
    torch.manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    kept = []
    try:
        for x, y in on_gpu:
            for _ in range(5):
                busy = busy @ busy  # the device lags behind the host, which goes on copying
            kept.append((x * 1, y * 1))
            del x, y
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [plain(batch) for batch in kept] == [tuple(batch) for batch in expected]

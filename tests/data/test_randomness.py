"""Random numbers that are functions of counters, against the published generator."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from rootflow.data.randomness import draw, hash_ints, hash_tensors, keep_generators, seed_generators

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def splitmix64(state: int) -> int:
    """The reference implementation of Sebastiano Vigna (public domain), transcribed."""
    z = (state + 0x9E3779B97F4A7C15) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return z ^ (z >> 31)


def test_one_counter_gives_the_published_first_numbers_of_splitmix64() -> None:
    assert hash_ints(0) == 0xE220A8397B1DCDAF
    assert hash_ints(1234567) == 6457827717110365317


def test_tensors_and_ints_give_the_same_bits_as_the_reference() -> None:
    index = torch.tensor([0, 1, 2, 49_999, 2**40])
    for seed, epoch, use in [(0, 0, 0), (1, 7, 2), (2**63, 3, 4), (2**64 - 1, 10**6, 1)]:
        found = hash_tensors(seed, epoch, index, use)
        for position, bits in zip(index.tolist(), found.tolist(), strict=True):
            wanted = 0
            for counter in (seed, epoch, position, use):
                wanted = splitmix64((wanted + counter) & (2**64 - 1))
            assert bits % 2**64 == wanted == hash_ints(seed, epoch, position, use)


def test_each_counter_changes_the_number_and_their_order_matters() -> None:
    found = {hash_ints(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(found) == 1000


@pytest.mark.parametrize("num_values", [2, 9, 32])
def test_draws_are_uniform_over_samples_and_over_epochs(num_values: int) -> None:
    over_samples = hash_tensors(0, 3, torch.arange(100_000), 1)
    over_epochs = torch.cat([hash_tensors(0, epoch, torch.arange(50), 1) for epoch in range(2000)])
    for bits in (over_samples, over_epochs):
        counts = draw(bits, num_values).bincount(minlength=num_values).double()
        expected = 100_000 / num_values
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert len(counts) == num_values
        assert chi_square < (num_values - 1) + 5 * (2 * (num_values - 1)) ** 0.5


@pytest.mark.gpu
@needs_gpu
def test_the_bits_are_the_same_on_a_gpu() -> None:
    index = torch.arange(10_000)
    on_gpu = hash_tensors(5, 3, index.cuda(), 2)
    assert torch.equal(on_gpu.cpu(), hash_tensors(5, 3, index, 2))
    assert torch.equal(draw(on_gpu, 9).cpu(), draw(hash_tensors(5, 3, index, 2), 9))


def test_seeded_generators_repeat_and_are_put_back() -> None:
    def draw_all() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with keep_generators():
        seed_generators(1, 2, 3)
        first = draw_all()
        seed_generators(1, 2, 4)
        other = draw_all()
        seed_generators(1, 2, 3)
        again = draw_all()
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())

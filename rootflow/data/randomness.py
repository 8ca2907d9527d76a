"""Random numbers as functions of counters, so that the order in which they are drawn never matters.

`hash_ints(seed, epoch, index)` is the same number in whatever process, worker or device asks for it, and
whatever was asked for before. The mixing is that of SplitMix64 (Steele, Lea & Flood 2014, "Fast
splittable pseudorandom number generators", OOPSLA), once for every counter.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_WORD = 2**64


def hash_ints(*counters: int) -> int:
    """Return 64 random bits, a function of the counters, as an int of 0 .. 2**64 - 1."""
    return functools.reduce(lambda bits, counter: _mix((bits + counter + _GAMMA) % _WORD), counters, 0)


def hash_tensors(*counters: Tensor | int) -> Tensor:
    """Return 64 random bits for each position of the broadcast counters, as int64.

    The bits are those of `hash_ints`, read as two's complement, and the same on every device.
    """
    bits: Tensor | int = 0
    for counter in counters:
        total = bits + counter
        if isinstance(total, int):
            bits = _signed(_mix((total + _GAMMA) % _WORD))
        else:
            bits = _mix_tensor(total + _signed(_GAMMA))
    return torch.as_tensor(bits)


def draw(bits: Tensor, num_values: int) -> Tensor:
    """Turn random bits into integers of 0 .. ``num_values - 1``, each as likely as the others.

    Exact to one part in 2**32 / ``num_values`` (Lemire 2019, "Fast random integer generation in an
    interval", without its rejection step, which would need a loop).
    """
    return (_shifted_right(bits, 32) * num_values) >> 32


def seed_generators(*counters: int) -> None:
    """Seed the global generators of Python, NumPy and torch's CPU by the counters.

    `torch.manual_seed` would also reach for the accelerators, which costs more than reading a sample.
    """
    bits = hash_ints(*counters)
    random.seed(bits)
    np.random.seed(bits % 2**32)  # data sets draw from the global generator
    torch.default_generator.manual_seed(bits % 2**63)


@contextmanager
def keep_generators() -> Iterator[None]:
    """Leave the global generators of Python, NumPy and torch's CPU as they were found."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _mix(bits: int) -> int:
    bits = ((bits ^ (bits >> _SHIFTS[0])) * _FACTORS[0]) % _WORD
    bits = ((bits ^ (bits >> _SHIFTS[1])) * _FACTORS[1]) % _WORD
    return bits ^ (bits >> _SHIFTS[2])


def _mix_tensor(bits: Tensor) -> Tensor:
    # int64 multiplication wraps around modulo 2**64 on every device, as SplitMix64 asks for
    bits = (bits ^ _shifted_right(bits, _SHIFTS[0])) * _signed(_FACTORS[0])
    bits = (bits ^ _shifted_right(bits, _SHIFTS[1])) * _signed(_FACTORS[1])
    return bits ^ _shifted_right(bits, _SHIFTS[2])


def _shifted_right(bits: Tensor, places: int) -> Tensor:
    """Shift in zeros: `>>` on int64 would shift in the sign."""
    shifted: Tensor = (bits >> places) & (2 ** (64 - places) - 1)
    return shifted


def _signed(word: int) -> int:
    return word - _WORD if word >= _WORD // 2 else word

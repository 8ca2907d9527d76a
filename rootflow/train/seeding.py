"""One seed into every generator of the process, and their states in and out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices.

    The order of samples and their augmentation don't depend on these: they are functions of
    (seed, epoch, index) in the loaders.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # users' code draws from the global generator
    torch.manual_seed(seed)


def generator_states(own: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy and torch, on all devices in use.

    Args:
        own: generators of a loader, say, whose states are wanted too.
    """
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "own": [generator.get_state() for generator in own],
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    if (other := _other_accelerator()) is not None:
        states[other] = torch.get_device_module(other).get_rng_state()
    return states


def set_generator_states(states: Mapping[str, Any], own: Sequence[torch.Generator] = ()) -> None:
    """Put the generators back to what `generator_states` returned for them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    for generator, state in zip(own, states["own"], strict=False):
        generator.set_state(state)
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    if (other := _other_accelerator()) is not None and other in states:
        torch.get_device_module(other).set_rng_state(states[other])


def torch_generators(device: torch.device) -> list[torch.Generator]:
    """Return torch's generators that a training on a device draws from: the CPU's, and the device's own."""
    found = [torch.default_generator]
    if device.type in ("cuda", "xpu"):
        module = torch.get_device_module(device)
        index = module.current_device() if device.index is None else device.index
        found.append(module.default_generators[index])
    elif device.type == "mps":
        found.append(torch.mps._get_default_mps_generator())
    return found


def _other_accelerator() -> str | None:
    """Return the type of an accelerator that isn't CUDA, which has one generator: `mps` or `xpu`."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None and found.type in ("mps", "xpu") else None


@contextmanager
def keep_generators(own: Sequence[torch.Generator] = ()) -> Iterator[None]:
    """Leave the global generators, on all devices in use, and those of a loader as they were found."""
    states = generator_states(own)
    try:
        yield
    finally:
        set_generator_states(states, own)

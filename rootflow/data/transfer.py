"""Batches of whatever structure, from the host to a device."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor


def to_device(value: Any, device: torch.device) -> Any:
    """Return tensors, or containers of them, on a device; the host doesn't wait for the copy.

    Lists, tuples, named tuples, dicts and dataclasses are gone through and keep their types; an object with
    a method `to` is asked to move itself; anything else stays as it is.
    """
    return _map_leaves(value, partial(_copy, device=device))


class Transfer:
    """Brings one batch after the other to a device.

    On CUDA the copy of a batch runs while the device still computes the update before: from pinned memory,
    on a stream of its own, for which only those kernels wait that are launched later. Nothing is read ahead
    for it, since the host, which never waits, asks for a batch long before the device needs it. So a source
    that draws from the global generators draws at the same moments as in a loop without copies.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, batch: Any) -> Any:
        """Return the batch on the device, structured as it came."""
        if self._stream is None:
            return to_device(batch, self.device)
        moved = _map_leaves(batch, self._copy_aside)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return moved

    def _copy_aside(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.device.type != "cpu":
            return _copy(value, self.device)
        with torch.cuda.stream(self._stream):
            moved = _copy(value, self.device)
        # else its memory could be given to the next copy while kernels of the update still read it
        moved.record_stream(torch.cuda.current_stream(self.device))
        return moved


def _copy(value: Any, device: torch.device) -> Any:
    if not isinstance(value, Tensor):
        return value.to(device)
    if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
        value = value.pin_memory()
    return value.to(device, non_blocking=device.type == "cuda")


def _map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to all tensors, and other objects with a method `to`, in nested containers."""
    if isinstance(value, Tensor) or callable(getattr(value, "to", None)):  # e.g. a PackedSequence
        return function(value)
    if isinstance(value, tuple | list):
        if hasattr(value, "_fields"):
            return type(value)(*[_map_leaves(item, function) for item in value])
        return type(value)([_map_leaves(item, function) for item in value])
    if isinstance(value, dict):
        mapped = copy.copy(value)
        mapped.update({key: _map_leaves(item, function) for key, item in value.items()})
        return mapped
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        clone = copy.copy(value)
        for field in dataclasses.fields(value):  # past a frozen class's own __setattr__
            object.__setattr__(clone, field.name, _map_leaves(getattr(value, field.name), function))
        return clone
    return value

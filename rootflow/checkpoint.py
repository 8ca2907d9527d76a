"""Weights to files and back: safetensors beside a JSON of what they are, never a pickle.

    best.safetensors  best.json      the weights of the best evaluation
    last.safetensors  last.json      the weights of the last one

A file is whole or not there. The tensors have the names and layout of the model's own `state_dict`,
so plain PyTorch loads them: `model.load_state_dict(safetensors.torch.load_file(path))`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rootflow.errors import CheckpointError
from rootflow.files import replace_when_done, write_json


def save_weights(path: Path, weights: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write ``weights`` to ``path`` (.safetensors) and ``about`` to the JSON beside it, atomically.

    Only tensors go in. Those that share storage are written out each, so that every key of the model
    is in the file.

    Raises:
        CheckpointError: the disk is full, say; what was there before is untouched.
    """
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replace_when_done(path) as scratch:
            save_file(plain, scratch, metadata={"format": "pt"})
        write_json(path.with_suffix(".json"), {key: _json_number(value) for key, value in about.items()})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be written: {error}") from error


def _on_host(value: Any) -> Any:
    """Copy a tensor; what a module keeps beside its tensors (`get_extra_state`) stays as it is."""
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def _json_number(value: Any) -> Any:
    """Return null for a number that JSON has no form for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file of `save_weights` into a model of the same architecture.

    Raises:
        CheckpointError: the file is missing or damaged, or its tensors are not this model's; the
            model is then unchanged.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    state = model.state_dict()
    own = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    if own != theirs:
        raise CheckpointError(f"{path} does not fit this model: {_first_difference(own, theirs)}")
    model.load_state_dict(weights, strict=len(own) == len(state))


def _first_difference(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    for name in (*own, *theirs):
        if own.get(name) != theirs.get(name):
            here, there = (str(side.get(name, "missing")) for side in (own, theirs))
            return f"{name} is {there} in the file, {here} in the model."
    return "the same tensors."


class WeightKeeper:
    """Keeps the best and the last weights of a training, in memory at once and on disk soon.

    Used in a `with` block, everything is on disk when the block ends, however it ends.

    A write waits until ``every_s`` seconds after the one before, so that short epochs don't spend
    their time on it; `flush` writes what is waiting. A kill costs the evaluations of
    those seconds, and the epoch that it falls into.

    Args:
        folder: where the files go; made by the first write.
        every_s: the least time between two writes, in seconds.
    """

    def __init__(self, folder: Path, *, every_s: float = 30.0) -> None:
        self.folder = folder
        self.every_s = every_s
        self._waiting: dict[str, tuple[dict[str, Any], Mapping[str, Any]]] = {}
        self._written_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def keep(self, names: Sequence[str], model: nn.Module, about: Mapping[str, Any]) -> None:
        """Take a copy of the model's weights to the host, to be written as each `<name>.safetensors`."""
        weights = {key: _on_host(value) for key, value in model.state_dict().items()}
        self._waiting |= dict.fromkeys(names, (weights, about))
        if time.monotonic() - self._written_at >= self.every_s:
            self.flush()

    def flush(self) -> None:
        """Write everything that waits."""
        for name, (weights, about) in self._waiting.items():
            save_weights(self.folder / f"{name}.safetensors", weights, about)
        self._waiting.clear()
        self._written_at = time.monotonic()

    def load(self, name: str, model: nn.Module) -> None:
        """Put the kept weights of that name into the model."""
        if name in self._waiting:
            with torch.no_grad():
                model.load_state_dict(self._waiting[name][0])
        else:
            load_weights(model, self.folder / f"{name}.safetensors")

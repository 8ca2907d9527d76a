"""Weights to files and back: safetensors beside a JSON of what they are, never a pickle.

    best.safetensors  best.json      the weights of the best evaluation
    last.safetensors  last.json      the weights of the last one

A file is whole or not there, and damage is found when it is loaded. The tensors have the names and layout
of the model's own `state_dict`, so plain PyTorch loads them:
`model.load_state_dict(safetensors.torch.load_file(path))`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rootflow.checkpoint.tensors import tensor_chunks
from rootflow.errors import CheckpointError
from rootflow.files import (
    Digest,
    json_text,
    make_folder,
    read_digest,
    replace_when_done,
    sync,
    why_not_written,
    write_synced,
)


def save_weights(path: Path, weights: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write ``weights`` to ``path`` (.safetensors) and ``about`` to the JSON beside it, atomically.

    Only tensors go in. Those that share storage are written out each, so that every key of the model
    is in the file. The JSON also gets the "bytes" and the "sha256" of the file, which `load_weights`
    checks. It is removed before the weights are replaced, so that it never speaks of others.

    Raises:
        CheckpointError: the disk is full, say; the weights that were there before are untouched.
    """
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    about_path = path.with_suffix(".json")
    try:
        make_folder(path.parent)
        with replace_when_done(about_path) as about_scratch, replace_when_done(path) as scratch:
            digest = _write(scratch, tensor_chunks(tensors))
            facts = {key: _json_number(value) for key, value in about.items()}
            facts |= {"bytes": digest.num_bytes, "sha256": digest.sha256}
            _write(about_scratch, [json_text(facts).encode()])
            if about_path.exists():
                about_path.unlink()
                sync(path.parent)
    except OSError as error:
        need_bytes = sum(tensor.nbytes for tensor in tensors.values())
        raise CheckpointError(
            f"{path.name} is not written. {why_not_written(path.parent, error, need_bytes=need_bytes)}"
        ) from error


def _write(scratch: Path, chunks: Iterable[bytes | memoryview]) -> Digest:
    scratch.unlink(missing_ok=True)  # left by a process of the same number that was killed
    return write_synced(scratch, chunks)


def _on_host(value: Any) -> Any:
    """Copy a tensor; what a module keeps beside its tensors (`get_extra_state`) stays as it is."""
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def _json_number(value: Any) -> Any:
    """Return null for a number that JSON has no form for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file of `save_weights`, or of plain PyTorch, into a model of the same architecture.

    Raises:
        CheckpointError: the file is missing or damaged, is not the one that the JSON beside it speaks
            of, or its tensors are not this model's; the model is then unchanged.
    """
    try:
        check_weights(path)
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    state = model.state_dict()
    own = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    if own != theirs:
        raise CheckpointError(f"{path} does not fit this model: {_first_difference(own, theirs)}")
    model.load_state_dict(weights, strict=len(own) == len(state))


def check_weights(path: Path) -> None:
    """Compare a file with what the JSON beside it says, if there is one that says it.

    Raises:
        CheckpointError: it is another, or the JSON is none.
        OSError: one of them can't be read.
    """
    about_path = path.with_suffix(".json")
    if not about_path.exists():
        return
    try:
        about = json.loads(about_path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{about_path} can't be read: {error}. Remove it to load {path.name} unverified."
        ) from error
    if not isinstance(about, dict) or not {"bytes", "sha256"} <= about.keys():
        return
    found = read_digest(path)
    if (found.num_bytes, found.sha256) != (about["bytes"], about["sha256"]):
        raise CheckpointError(
            f"{path} is damaged: it has {found.num_bytes} bytes and sha256 {found.sha256[:12]}..., but"
            f" {about['bytes']} and {str(about['sha256'])[:12]}... were written ({about_path.name})."
        )


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
        self.folder = Path(folder)
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

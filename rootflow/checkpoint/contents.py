"""What is in the folder of one saved state: a file of tensors for each key that has some, and state.json.

model.safetensors       the tensors of state["model"], by the names that its state_dict has
optimizer.safetensors   those of state["optimizer"]: state.0.exp_avg, ...
state.json              all else, and which tensor goes where (see `rootflow.checkpoint.tree`)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rootflow.checkpoint.manifest import SAFE_NAME, DamagedError, Manifest, damage_named
from rootflow.checkpoint.tensors import tensor_chunks
from rootflow.checkpoint.tree import flatten_tree, restore_tree
from rootflow.errors import CheckpointError
from rootflow.files import Digest, read_regular, write_synced

_FILE = "state.json"
_MAX_BYTES = 1 << 26
"""Of state.json, written or read: 64 MiB are some seconds of parsing, and no file may ask for more."""


@dataclass(frozen=True)
class Contents:
    """A state, taken apart; the tensors are the live ones."""

    tensors: dict[str, dict[str, Tensor]]
    """By file, then by name."""
    text: bytes
    """state.json."""

    @property
    def num_bytes(self) -> int:
        """Bytes on the disk, short of the headers of the files."""
        sizes = (tensor.nbytes for tensors in self.tensors.values() for tensor in tensors.values())
        return sum(sizes) + len(self.text)


def split_state(state: Mapping[str, Any]) -> Contents:
    """Take a state apart, touching no disk.

    Raises:
        CheckpointError: a value that can't be kept, or more plain values than a JSON should have.
    """
    tensors: dict[str, dict[str, Tensor]] = {}
    document: dict[str, Any] = {}
    for key, value in state.items():
        if type(key) is not str:
            raise CheckpointError(f"the state has the key {key!r}; its outermost keys must be text.")
        found, skeleton = flatten_tree(value, place=key)
        name = _free_file_name(key, tensors) if found else None
        if name:
            tensors[name] = found
        document[key] = {"file": name, "value": skeleton}
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > _MAX_BYTES:
        raise CheckpointError(
            f"the plain values of the state are {len(text):,} bytes of JSON, more than {_MAX_BYTES:,}."
            " Make its long lists of numbers tensors."
        )
    return Contents(tensors, text)


def write_contents(folder: Path, contents: Contents) -> dict[str, Digest]:
    """Write the files of a state, each synced, and return what was written."""
    written = {
        name: write_synced(folder / name, tensor_chunks(tensors))
        for name, tensors in contents.tensors.items()
    }
    return written | {_FILE: write_synced(folder / _FILE, [contents.text])}


def read_contents(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Read a state whose files were checked; its tensors are on the CPU, each with memory of its own.

    Raises:
        DamagedError: the files are what the manifest says, but not a state.
    """
    with damage_named(_FILE):
        text = read_regular(folder / _FILE, max_bytes=_MAX_BYTES)
    try:
        document: dict[str, dict[str, Any]] = json.loads(text)
        return {
            key: restore_tree(_read_tensors(folder, part["file"], manifest), part["value"])
            for key, part in document.items()
        }
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, CheckpointError) as error:
        raise DamagedError(f"{_FILE} is no state: {error}") from error


def _read_tensors(folder: Path, name: str | None, manifest: Manifest) -> dict[str, Tensor]:
    if name is None:
        return {}
    if name not in manifest.files:
        raise DamagedError(f"{name!r} is not in the manifest")
    try:
        return load_file(folder / name)
    except SafetensorError as error:
        raise DamagedError(f"{name} can't be read: {error}") from error
    except RuntimeError as error:  # how torch tells that a file can't be mapped, which is no damage
        raise OSError(f"{name}: {error}") from error


def _free_file_name(key: str, taken: Mapping[str, Any]) -> str:
    """Return `<key>.safetensors`, or a number where that is no file name or differs from another by case."""
    wanted, number = f"{key}.safetensors", 1
    lower = {name.lower() for name in taken}
    while not SAFE_NAME.fullmatch(wanted) or wanted.lower() in lower:
        wanted, number = f"tensors-{number}.safetensors", number + 1
    return wanted
